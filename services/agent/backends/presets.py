"""The table of OpenAI-compatible servers: what each kind can do beyond the shared API, and what it cannot.

The table says what may be sent. What a kind cannot do is refused before anything is asked, so that nobody
gets an answer that was made in another way than was asked for.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from schemas.errors import InvalidRequest
from schemas.sampling import Sampling
from schemas.workers import WorkerType

ANSWER = "answer"
DEFAULT_TOP_K = 40


@dataclass(frozen=True)
class Preset:
    """One kind of server.

    `schema` is how a JSON schema is sent (None: the kind has none), `neutral` what switches off penalties
    that the kind applies by itself, `max_stops` how many stop strings it takes, `max_tokens` what it calls
    that.
    """

    schema: Literal["json_schema", "json_object"] | None = "json_schema"
    top_k: bool = True
    grammar: bool = False
    logprobs: bool = True
    max_stops: int = 16
    max_tokens: Literal["max_tokens", "max_completion_tokens"] = "max_tokens"
    neutral: Mapping[str, Any] = field(default_factory=dict)


PRESETS: dict[WorkerType, Preset] = {
    "lm_studio": Preset(logprobs=False, neutral={"repeat_penalty": 1.0}),
    "exo": Preset(schema=None, top_k=False, logprobs=False),
    "llama_server": Preset(grammar=True, neutral={"repeat_penalty": 1.0, "min_p": 0.0}),
    "llama_cpp_python": Preset(
        schema="json_object", grammar=True, neutral={"repeat_penalty": 1.0, "min_p": 0.0}
    ),
    "vllm": Preset(neutral={"repetition_penalty": 1.0}),
    "openai": Preset(top_k=False, max_stops=4, max_tokens="max_completion_tokens"),
}


def parameters(kind: WorkerType, sampling: Sampling) -> dict[str, Any]:
    """The fields of a chat completion that say how to sample; InvalidRequest for what `kind` cannot do.

    `top_k` where a kind has none is refused only if it is neither the default nor without effect: the default
    is what everybody sends who has not thought of it.
    """
    preset = PRESETS[kind]
    _check(kind, preset, sampling)
    fields: dict[str, Any] = {
        preset.max_tokens: sampling.max_tokens,
        "temperature": sampling.temperature,
        "top_p": sampling.top_p,
        "seed": sampling.seed,
        **preset.neutral,
    }
    if sampling.stop:
        fields["stop"] = list(sampling.stop)
    if preset.top_k:
        fields["top_k"] = sampling.top_k
    if sampling.grammar is not None:
        fields["grammar"] = sampling.grammar
    if sampling.json_schema is not None:
        fields["response_format"] = response_format(preset, sampling.json_schema)
    if sampling.logprobs:
        fields |= {"logprobs": True, "top_logprobs": sampling.logprobs}
    return fields


def response_format(preset: Preset, schema: Mapping[str, Any]) -> dict[str, Any]:
    """How a JSON schema is sent."""
    if preset.schema == "json_object":
        return {"type": "json_object", "schema": dict(schema)}
    return {
        "type": "json_schema",
        "json_schema": {"name": ANSWER, "schema": dict(schema), "strict": True},
    }


def _check(kind: WorkerType, preset: Preset, sampling: Sampling) -> None:
    top_k_matters = sampling.temperature > 0 and sampling.top_k not in (0, DEFAULT_TOP_K)
    impossible = {
        "top_k": top_k_matters and not preset.top_k,
        "grammar": sampling.grammar is not None and not preset.grammar,
        "json_schema": sampling.json_schema is not None and preset.schema is None,
        "logprobs": sampling.logprobs > 0 and not preset.logprobs,
        "stop": len(sampling.stop) > preset.max_stops,
    }
    for name, wanted in impossible.items():
        if wanted:
            raise InvalidRequest(
                f"sampling.{name}: a server of type {kind} cannot do that; leave it out or ask another model",
                field=f"sampling.{name}",
            )
