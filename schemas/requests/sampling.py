"""How a text is to be generated: the options that travel with a command and reach the sampler."""

from __future__ import annotations

from functools import partial
from operator import eq, not_
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from schemas.message import Struct, field_error, is_none

MAX_SAMPLES = 8
MAX_BIASES = 1_024

Think = bool | Literal["low", "medium", "high"]
"""Whether a model that can is to think before it answers, and how much."""

Penalty = Annotated[float, Field(ge=-2.0, le=2.0, exclude_if=not_)]
Bias = Annotated[float, Field(ge=-100.0, le=100.0)]


_is_one = partial(eq, 1)


class Sampling(Struct):
    """Sampler options of one generation. Those that came later are sent only where they say something.

    `temperature` 0 is greedy decoding; `top_k` 0 and `top_p` 1 switch those filters off.
    `stop` strings end the text and are not part of it. At most one of `json_schema` and
    `grammar` (GBNF) constrains the output. `logprobs` is how many alternatives are reported
    for each generated token (0: none).

    `presence_penalty` is taken from the logit of each token that the text has already, `frequency_penalty` as
    often as the text has it; `repeat_penalty` divides the logits of tokens among the last 64, prompt included
    (1: off). `min_p` leaves out tokens that are less probable than this share of the most probable one;
    `logit_bias` is added to the logits of these token ids, and -100 forbids a token. `n` is how many texts
    are generated, each under the next seed. With `prompt_logprobs` the tokens of the prompt are told like
    generated ones, and the first generated one even if it ends the text. `think` None leaves it to the model.
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
    presence_penalty: Penalty = 0.0
    frequency_penalty: Penalty = 0.0
    repeat_penalty: float = Field(default=1.0, gt=0.0, le=10.0, exclude_if=_is_one)
    min_p: float = Field(default=0.0, ge=0.0, le=1.0, exclude_if=not_)
    logit_bias: dict[Annotated[int, Field(ge=0, lt=2**31)], Bias] = Field(
        default_factory=dict, max_length=MAX_BIASES, exclude_if=not_
    )
    n: int = Field(default=1, ge=1, le=MAX_SAMPLES, exclude_if=_is_one)
    prompt_logprobs: bool = Field(default=False, exclude_if=not_)
    think: Annotated[Think | None, Field(exclude_if=is_none)] = None

    @model_validator(mode="after")
    def _one_constraint(self) -> Sampling:
        if self.json_schema is not None and self.grammar is not None:
            raise field_error("sampling.grammar", "json_schema and grammar exclude one another")
        if any(not stop or len(stop) > 256 for stop in self.stop):
            raise field_error("sampling.stop", "a stop string has 1 to 256 characters")
        if self.prompt_logprobs and not self.logprobs:
            raise field_error("sampling.prompt_logprobs", "it needs logprobs: how many alternatives are told")
        if self.prompt_logprobs and self.n > 1:
            raise field_error("sampling.n", "prompt_logprobs are those of one text: leave n out")
        return self
