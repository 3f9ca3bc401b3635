"""The body of `POST /v1/responses`, made into an `Ask` and what is kept of it."""

from __future__ import annotations

import time
from typing import Annotated, Any, Literal

from pydantic import Field

from schemas.commands import MAX_MESSAGES
from schemas.requests.chat import MAX_TOOLS, ChatMessage
from schemas.requests.responses import ResponseRecord
from services.gateway.http.body import Body, Many, at_most
from services.gateway.openai.asking.ask import OWN_NAMES as NAMES_OF_ALL
from services.gateway.openai.asking.ask import build
from services.gateway.openai.asking.sampling import (
    EFFORTS,
    Effort,
    ResponseFormat,
    SamplingBody,
    sampling_fields,
    schema_of,
)
from services.gateway.openai.chat.messages import (
    ContentPart,
    FunctionPart,
    MessageBody,
    ToolCallPart,
    conversation,
    refused,
    some,
)
from services.gateway.openai.chat.tools import ToolBody, ToolChoiceBody, tool_fields
from services.gateway.openai.responses.identity import request_of
from services.gateway.requests.models import Target

OWN_NAMES = {**NAMES_OF_ALL, "messages": "input", "json_schema": "text.format"}
ECHOED = (
    "instructions",
    "max_output_tokens",
    "metadata",
    "reasoning",
    "text",
    "tool_choice",
    "tools",
    "user",
)
"""Fields that a response repeats as they were given."""


class InputItem(Body):
    """An item of the input: a message if it says no type."""

    type: str = "message"
    role: Literal["system", "developer", "user", "assistant"] | None = None
    content: str | Many[ContentPart] | None = None
    call_id: str | None = None
    name: str | None = None
    arguments: str | None = None
    output: str | Many[ContentPart] | None = None


class TextBody(Body):
    """The form of the answer."""

    format: ResponseFormat | None = None


class ReasoningBody(Body):
    """How much is to be thought."""

    effort: Effort | None = None


class ResponseBody(SamplingBody):
    """What a request for a response may say, of which all but `model` and `input` may be left out."""

    model: str
    input: Annotated[str | Many[InputItem], at_most(MAX_MESSAGES)]
    instructions: str | None = None
    max_output_tokens: int | None = None
    previous_response_id: str | None = None
    background: bool | None = None
    stream: bool | None = None
    store: bool | None = None
    metadata: Annotated[dict[str, str] | None, at_most(16)] = None
    parallel_tool_calls: bool | None = None
    text: TextBody | None = None
    reasoning: ReasoningBody | None = None
    tools: Many[ToolBody] | None = Field(default=None, max_length=MAX_TOOLS)
    tool_choice: ToolChoiceBody | None = None
    user: str | None = None

    @property
    def kept(self) -> bool:
        """Whether clients may come back to it."""
        return self.store is not False or bool(self.background)


def record_of(
    body: ResponseBody,
    given: dict[str, Any],
    said: tuple[ChatMessage, ...],
    target: Target,
    request_id: str,
    timeout_s: float,
) -> ResponseRecord:
    """What the mesh is asked, and all else that is told of it. InvalidRequest names the field that cannot be.

    `given` are the fields as they came, `said` is the conversation that this goes on from.
    """
    if body.background and body.store is False:
        raise refused("background", "what goes on by itself is stored: leave store out")
    talk = (*said, *some(conversation(_messages(body), "input"), "input"))
    system = conversation([MessageBody(role="system", content=body.instructions)], "instructions")
    sampling = sampling_fields(body, request_id, body.max_output_tokens)
    sampling["json_schema"] = schema_of(body.text.format, "text.format") if body.text else None
    if body.reasoning is not None and body.reasoning.effort is not None and target.thinks:
        sampling["think"] = EFFORTS[body.reasoning.effort]
    fields = {
        "messages": (*system, *talk),
        "sampling": sampling,
        "stream": bool(body.stream) and target.ensemble is None,
        **tool_fields(body.tools, body.tool_choice),
    }
    return ResponseRecord(
        ask=build(fields, target, request_id, timeout_s, OWN_NAMES),
        conversation=talk,
        created_at_s=round(time.time(), 3),
        model=body.model,
        background=bool(body.background),
        previous=body.previous_response_id and request_of(body.previous_response_id),
        echo=_echo(body, given),
    )


def _echo(body: ResponseBody, given: dict[str, Any]) -> dict[str, Any]:
    """What is told as it was given, and what holds where nothing was."""
    told = {name: given.get(name) for name in ECHOED}
    return {
        **told,
        "metadata": told["metadata"] or {},
        "parallel_tool_calls": body.parallel_tool_calls is not False,
        "store": body.kept,
        "temperature": 1.0 if body.temperature is None else body.temperature,
        "text": told["text"] or {"format": {"type": "text"}},
        "tool_choice": told["tool_choice"] or "auto",
        "tools": told["tools"] or [],
        "top_p": 1.0 if body.top_p is None else body.top_p,
        "truncation": "disabled",
    }


def _messages(body: ResponseBody) -> list[MessageBody]:
    """The items of the input as messages: calls belong to the message before them."""
    if isinstance(body.input, str):
        return [MessageBody(role="user", content=body.input)]
    messages: list[MessageBody] = []
    for number, item in enumerate(body.input):
        if item.type == "function_call":
            _add_call(messages, item, f"input.{number}")
        elif item.type != "reasoning":
            messages.append(_message(item, f"input.{number}"))
    return messages


def _message(item: InputItem, place: str) -> MessageBody:
    if item.type == "function_call_output":
        if item.output is None:
            raise refused(f"{place}.output", "it is missing")
        return MessageBody(role="tool", content=item.output, tool_call_id=item.call_id)
    if item.type != "message":
        raise refused(
            f"{place}.type", f"{item.type!r} is not taken here, messages and calls of functions are"
        )
    if item.role is None:
        raise refused(f"{place}.role", "it is missing")
    return MessageBody(role=item.role, content=item.content)


def _add_call(messages: list[MessageBody], item: InputItem, place: str) -> None:
    if item.name is None or item.call_id is None:
        raise refused(f"{place}.{'name' if item.name is None else 'call_id'}", "it is missing")
    call = ToolCallPart(
        id=item.call_id, function=FunctionPart(name=item.name, arguments=item.arguments or "")
    )
    if messages and messages[-1].role == "assistant":
        last = messages.pop()
        messages.append(last.model_copy(update={"tool_calls": [*(last.tool_calls or ()), call]}))
    else:
        messages.append(MessageBody(role="assistant", tool_calls=[call]))
