"""How a text is to be generated: the options that travel with a command and reach the sampler."""

from __future__ import annotations

from typing import Any

from pydantic import Field, model_validator

from schemas.message import Struct, field_error


class Sampling(Struct):
    """Sampler options of one generation.

    `temperature` 0 is greedy decoding; `top_k` 0 and `top_p` 1 switch those filters off.
    `stop` strings end the text and are not part of it. At most one of `json_schema` and
    `grammar` (GBNF) constrains the output. `logprobs` is how many alternatives are reported
    for each generated token (0: none).
    """

    max_tokens: int = Field(default=256, ge=1, le=32_768)
    temperature: float = Field(default=0.0, ge=0.0, le=5.0)
    top_k: int = Field(default=40, ge=0, le=1_000)
    top_p: float = Field(default=0.95, gt=0.0, le=1.0)
    seed: int = Field(default=0, ge=0, le=2**32 - 1)
    stop: tuple[str, ...] = Field(default=(), max_length=16)
    json_schema: dict[str, Any] | None = None
    grammar: str | None = Field(default=None, max_length=65_536)
    logprobs: int = Field(default=0, ge=0, le=20)

    @model_validator(mode="after")
    def _one_constraint(self) -> Sampling:
        if self.json_schema is not None and self.grammar is not None:
            raise field_error("sampling.grammar", "json_schema and grammar exclude one another")
        if any(not stop or len(stop) > 256 for stop in self.stop):
            raise field_error("sampling.stop", "a stop string has 1 to 256 characters")
        return self
