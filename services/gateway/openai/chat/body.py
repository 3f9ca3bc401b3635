"""The body of `POST /v1/chat/completions`, made into an `Ask`."""

from __future__ import annotations

from typing import Any

from pydantic import Field

from schemas.commands import MAX_MESSAGES, Ask
from schemas.ensembles.effort import Effort as AskEffort
from schemas.requests.chat import MAX_TOOLS
from schemas.requests.sampling import MAX_SAMPLES
from services.gateway.http.body import Body, Many
from services.gateway.openai.asking.ask import build
from services.gateway.openai.asking.sampling import (
    EFFORTS,
    Effort,
    ResponseFormat,
    SamplingBody,
    sampling_fields,
    schema_of,
)
from services.gateway.openai.chat.messages import MessageBody, conversation, some
from services.gateway.openai.chat.tools import ToolBody, ToolChoiceBody, tool_fields
from services.gateway.requests.models import Target


class StreamOptions(Body):
    """What a stream has beside the text."""

    include_usage: bool | None = None


class ChatBody(SamplingBody):
    """What a chat completion may say, of which all but `model` and `messages` may be left out.

    With `background`, no field of OpenAI's here, the work goes on when its client has gone. `effort`,
    `epsilon` and `min_confidence`, none of OpenAI's either, are those of `Ask`: an ensemble asks no more
    members than it needs, and rather says nothing than what is too improbable.
    """

    model: str
    messages: Many[MessageBody] = Field(min_length=1, max_length=MAX_MESSAGES)
    max_tokens: int | None = None
    max_completion_tokens: int | None = None
    n: int | None = Field(default=None, ge=1, le=MAX_SAMPLES)
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    logprobs: bool | None = None
    top_logprobs: int | None = Field(default=None, ge=0, le=20)
    response_format: ResponseFormat | None = None
    tools: Many[ToolBody] | None = Field(default=None, max_length=MAX_TOOLS)
    tool_choice: ToolChoiceBody | None = None
    parallel_tool_calls: bool | None = None
    reasoning_effort: Effort | None = None
    background: bool | None = None
    effort: AskEffort | None = None
    epsilon: float | None = None
    min_confidence: float | None = None

    @property
    def wants_usage(self) -> bool:
        """Whether a stream ends with the usage."""
        return bool(self.stream_options and self.stream_options.include_usage)


def chat_ask(body: ChatBody, target: Target, request_id: str, timeout_s: float) -> Ask:
    """What the mesh is asked. InvalidRequest names the field that cannot be.

    Only one text of one model comes in pieces: an ensemble has none before it has decided.
    """
    limit = body.max_completion_tokens if body.max_completion_tokens is not None else body.max_tokens
    sampling = sampling_fields(body, request_id, limit)
    sampling["json_schema"] = schema_of(body.response_format)
    sampling["logprobs"] = max(1, body.top_logprobs or 0) if body.logprobs else 0
    sampling["n"] = body.n or 1
    if body.reasoning_effort is not None and target.thinks:
        sampling["think"] = EFFORTS[body.reasoning_effort]
    fields: dict[str, Any] = {
        "messages": some(conversation(body.messages), "messages"),
        "sampling": sampling,
        "stream": bool(body.stream) and target.streams and sampling["n"] == 1,
        "effort": body.effort,
        "epsilon": body.epsilon,
        "min_confidence": body.min_confidence,
        **tool_fields(body.tools, body.tool_choice),
    }
    return build(fields, target, request_id, timeout_s)
