"""How OpenAI's fields say how to sample, and what holds where they say nothing."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import Field

from schemas.requests.sampling import MAX_BIASES, Think
from services.gateway.http.body import Body, Many, at_most
from services.gateway.openai.chat.messages import refused
from services.gateway.requests.identity import seed_of

MOST_TOKENS = 32_768
"""What the contract allows. OpenAI's text ends where the model ends it, or its context."""
DEFAULTS: Mapping[str, Any] = {"max_tokens": MOST_TOKENS, "temperature": 1.0, "top_p": 1.0, "top_k": 0}
SEEDS = 2**32
Effort = Literal["none", "minimal", "low", "medium", "high", "xhigh", "max"]
EFFORTS: Mapping[Effort, Think] = {
    "none": False,
    "minimal": "low",
    "low": "low",
    "medium": "medium",
    "high": "high",
    "xhigh": "high",
    "max": "high",
}


class SamplingBody(Body):
    """What every body may say about sampling; the last four are no fields of OpenAI's, and often sent."""

    temperature: float | None = None
    top_p: float | None = None
    seed: int | None = None
    stop: str | Many[str] | None = None
    presence_penalty: float | None = None
    frequency_penalty: float | None = None
    logit_bias: Annotated[dict[str, float] | None, at_most(MAX_BIASES)] = None
    top_k: int | None = None
    min_p: float | None = None
    repeat_penalty: float | None = None
    repetition_penalty: float | None = None


class JsonSchemaPart(Body):
    """The schema of an answer."""

    schema_: dict[str, Any] | None = Field(default=None, alias="schema")


class ResponseFormat(Body):
    """The form of an answer. Responses have the schema in the format itself."""

    type: Literal["text", "json_object", "json_schema"]
    json_schema: JsonSchemaPart | None = None
    schema_: dict[str, Any] | None = Field(default=None, alias="schema")


def sampling_fields(body: SamplingBody, request_id: str, max_tokens: int | None) -> dict[str, Any]:
    """The fields of `Sampling`, with OpenAI's defaults; a text may have fewer tokens than asked for."""
    given = {
        "temperature": body.temperature,
        "top_p": body.top_p,
        "top_k": body.top_k,
        "min_p": body.min_p,
        "presence_penalty": body.presence_penalty,
        "frequency_penalty": body.frequency_penalty,
        "repeat_penalty": body.repeat_penalty or body.repetition_penalty,
        "logit_bias": body.logit_bias,
        "max_tokens": None if max_tokens is None else min(max_tokens, MOST_TOKENS),
        "seed": seed_of(request_id) if body.seed is None else body.seed % SEEDS,
        "stop": _stops(body.stop),
    }
    return {**DEFAULTS, **{name: value for name, value in given.items() if value is not None}}


def _stops(stop: str | list[str] | None) -> tuple[str, ...]:
    given = (stop,) if isinstance(stop, str) else stop or ()
    return tuple(dict.fromkeys(text for text in given if text))


def schema_of(format_: ResponseFormat | None, field: str = "response_format") -> dict[str, Any] | None:
    """The JSON schema that an answer has to follow; None for plain text."""
    if format_ is None or format_.type == "text":
        return None
    if format_.type == "json_object":
        return {"type": "object"}
    schema = format_.json_schema.schema_ if format_.json_schema else format_.schema_
    if schema is None:
        raise refused(f"{field}.json_schema.schema", "it is missing")
    return schema
