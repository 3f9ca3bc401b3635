"""Builds an `Ask` from a caller's options."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypedDict, TypeVar

from pydantic import ValidationError

from schemas.commands import Ask, ChatMessage, Embed, RawPrompt
from schemas.ensembles.effort import Effort
from schemas.errors import InvalidRequest
from schemas.message import Message
from schemas.requests.chat import Tool, ToolChoice
from schemas.requests.sampling import Sampling, Think
from schemas.subjects import Priority
from services.chassis.identity import new_id
from services.chassis.plain_words import first_fault

RequestT = TypeVar("RequestT", bound=Message)


class AskOptions(TypedDict, total=False):
    """What can be said beside the prompt: the fields of `Ask`, and those of `Sampling` among them."""

    request_id: str | None
    messages: Sequence[ChatMessage | Mapping[str, Any]]
    raw: RawPrompt | Mapping[str, Any] | None
    embed: Embed | Mapping[str, Any] | None
    tools: Sequence[Tool | Mapping[str, Any]]
    tool_choice: ToolChoice | Mapping[str, str]
    model: str | None
    models: Sequence[str]
    summarize_with: Sequence[str]
    summary_prompt: str | None
    strategies: Sequence[str]
    choices: Sequence[str]
    answer_kind: str
    topic: str | None
    samples: int | None
    synthesizer: str | None
    embedder: str | None
    max_agents: int | None
    quorum: int | None
    effort: Effort | None
    epsilon: float | None
    min_confidence: float | None
    receipt: bool
    timeout_s: float
    cache: bool
    cache_settled: bool
    priority: Priority
    max_tokens: int
    temperature: float
    top_k: int
    top_p: float
    seed: int
    stop: Sequence[str]
    json_schema: dict[str, Any] | None
    grammar: str | None
    logprobs: int
    presence_penalty: float
    frequency_penalty: float
    repeat_penalty: float
    min_p: float
    logit_bias: Mapping[int, float]
    n: int
    prompt_logprobs: bool
    think: Think | None


def build_ask(prompt: str | None, options: AskOptions, *, stream: bool = False) -> Ask:
    """The request, always with a request_id. InvalidRequest names the field that is wrong."""
    sampling = {name: value for name, value in options.items() if name in Sampling.model_fields}
    fields = {name: value for name, value in options.items() if name not in sampling}
    fields |= {"prompt": prompt, "sampling": sampling, "stream": stream}
    given = options.get("request_id")
    fields["request_id"] = new_id() if given is None else given
    return build(Ask, fields)


def build(request_type: type[RequestT], fields: Mapping[str, Any]) -> RequestT:
    """A request of the client surface. InvalidRequest names the field that is wrong."""
    try:
        return request_type.model_validate(fields)
    except ValidationError as error:
        field, what = first_fault(error, passed_over=("sampling",))
        raise InvalidRequest(f"{field}: {what}", field=field) from error
