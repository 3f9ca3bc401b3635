"""The table of OpenAI-compatible servers: what each kind can do beyond the shared API, and what it cannot.

The table says what may be sent. What a kind cannot do is refused before anything is asked, so that nobody
gets an answer that was made in another way than was asked for.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from schemas.errors import InvalidRequest
from schemas.nodes.workers import WorkerType
from schemas.requests.sampling import Sampling, Think

ANSWER = "answer"
DEFAULT_TOP_K = 40
DEFAULT_REPEAT_PENALTIES = (1.0, 1.1)
"""The contract's, and Ollama's, whose clients say nothing of it."""
DEFAULT_EFFORT = "medium"


@dataclass(frozen=True)
class Preset:
    """One kind of server.

    `schema` is how a JSON schema is sent (None: the kind has none), `max_stops` how many stop strings it
    takes, `max_tokens` what it calls that. `repeat_penalty` is what it calls that (None: it has none),
    `think` how it is told to think or not: as an effort, by an option of the chat template, or not at all.
    """

    schema: Literal["json_schema", "json_object"] | None = "json_schema"
    top_k: bool = True
    grammar: bool = False
    logprobs: bool = True
    max_stops: int = 16
    max_tokens: Literal["max_tokens", "max_completion_tokens"] = "max_tokens"
    repeat_penalty: str | None = None
    min_p: bool = False
    think: Literal["effort", "template"] | None = None


PRESETS: dict[WorkerType, Preset] = {
    "lm_studio": Preset(logprobs=False, repeat_penalty="repeat_penalty", think="effort"),
    "exo": Preset(schema=None, top_k=False, logprobs=False),
    "llama_server": Preset(grammar=True, repeat_penalty="repeat_penalty", min_p=True, think="template"),
    "llama_cpp_python": Preset(
        schema="json_object", grammar=True, repeat_penalty="repeat_penalty", min_p=True
    ),
    "vllm": Preset(repeat_penalty="repetition_penalty", min_p=True, think="template"),
    "openai": Preset(top_k=False, max_stops=4, max_tokens="max_completion_tokens", think="effort"),
}


def parameters(kind: WorkerType, sampling: Sampling) -> dict[str, Any]:
    """The fields of a chat completion that say how to sample; InvalidRequest for what `kind` cannot do.

    `top_k` and `repeat_penalty` where a kind has none are refused only if they are neither a default nor
    without effect: a default is what everybody sends who has not thought of it.
    """
    preset = PRESETS[kind]
    _check(kind, preset, sampling)
    fields: dict[str, Any] = {
        preset.max_tokens: sampling.max_tokens,
        "temperature": sampling.temperature,
        "top_p": sampling.top_p,
        "seed": sampling.seed,
    }
    if preset.repeat_penalty is not None:
        fields[preset.repeat_penalty] = sampling.repeat_penalty
    if preset.min_p:
        fields["min_p"] = sampling.min_p
    for name in ("presence_penalty", "frequency_penalty"):
        if getattr(sampling, name):
            fields[name] = getattr(sampling, name)
    if sampling.logit_bias:
        fields["logit_bias"] = {str(token): bias for token, bias in sampling.logit_bias.items()}
    if sampling.think is not None:
        fields |= thinking(preset, sampling.think)
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


def thinking(preset: Preset, think: Think) -> dict[str, Any]:
    """How it is said that a model is to think, or not to. A kind that cannot be told so does as its model
    does."""
    if preset.think == "effort" and think is not False:
        return {"reasoning_effort": DEFAULT_EFFORT if think is True else think}
    if preset.think == "template":
        return {"chat_template_kwargs": {"enable_thinking": bool(think)}}
    return {}


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
        "repeat_penalty": preset.repeat_penalty is None
        and sampling.repeat_penalty not in DEFAULT_REPEAT_PENALTIES,
        "min_p": sampling.min_p > 0 and not preset.min_p,
        "think": bool(sampling.think) and preset.think is None,
        "prompt_logprobs": sampling.prompt_logprobs,
    }
    for name, wanted in impossible.items():
        if wanted:
            raise InvalidRequest(
                f"sampling.{name}: a server of type {kind} cannot do that; leave it out or ask another model",
                field=f"sampling.{name}",
            )
