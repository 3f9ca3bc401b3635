"""Messages of a conversation, as OpenAI's clients send them, made into those of the contract."""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import count
from typing import Any, Literal

from pydantic import Field, ValidationError

from schemas.errors import InvalidRequest
from schemas.requests.chat import MAX_TOOLS, ChatMessage
from services.chassis.plain_words import first_fault
from services.gateway.http.body import Body, Many, json_object

TEXTS = ("text", "input_text", "output_text", "refusal")
IMAGES = ("image_url", "input_image")
DATA_URL = re.compile(r"data:(image/[a-z]+);base64,", re.IGNORECASE)


class ImagePart(Body):
    """Where an image is."""

    url: str


class ContentPart(Body):
    """A piece of a message's content."""

    type: str
    text: str | None = None
    refusal: str | None = None
    image_url: str | ImagePart | None = None


class FunctionPart(Body):
    """The function of a tool call; `arguments` is JSON as a model wrote it."""

    name: str
    arguments: str = ""


class ToolCallPart(Body):
    """One call of a tool."""

    id: str | None = None
    function: FunctionPart


class MessageBody(Body):
    """One message of a request."""

    role: Literal["system", "developer", "user", "assistant", "tool", "function"]
    content: str | Many[ContentPart] | None = None
    name: str | None = None
    tool_calls: Many[ToolCallPart] | None = Field(default=None, max_length=MAX_TOOLS)
    tool_call_id: str | None = None
    reasoning_content: str | None = None


def conversation(messages: list[MessageBody], field: str = "messages") -> tuple[ChatMessage, ...]:
    """The same conversation in the contract's words. InvalidRequest names the message that cannot be.

    A system prompt that says nothing is left out. The result of a call has the name of the tool, which these
    clients do not repeat.
    """
    names: dict[str, str] = {}
    unnamed = count()
    turns = []
    for number, message in enumerate(messages):
        place = f"{field}.{number}"
        if message.role in ("system", "developer") and not message.content:
            continue
        turn = turn_of(_fields(message, place, names, unnamed), place)
        names |= {call.id: call.name for call in turn.tool_calls}
        turns.append(turn)
    return tuple(turns)


def some(turns: tuple[ChatMessage, ...], field: str) -> tuple[ChatMessage, ...]:
    """The same turns; InvalidRequest if there are none."""
    if not turns:
        raise refused(field, "it says nothing")
    return turns


def turn_of(fields: dict[str, Any], place: str) -> ChatMessage:
    """A turn of these fields; InvalidRequest names the one that is wrong, under `place`."""
    try:
        return ChatMessage.model_validate(
            {name: value for name, value in fields.items() if value is not None}
        )
    except ValidationError as error:
        field, why = first_fault(error, whole="content")
        raise refused(f"{place}.{field}", why) from error


def _fields(
    message: MessageBody, place: str, names: dict[str, str], unnamed: Iterator[int]
) -> dict[str, Any]:
    role = "tool" if message.role == "function" else message.role
    fields: dict[str, Any] = {"role": role, "content": content_of(message.content, f"{place}.content")}
    if role == "tool":
        fields["tool_call_id"] = message.tool_call_id
        fields["name"] = message.name or names.get(message.tool_call_id or "")
    if role == "assistant":
        fields["thinking"] = message.reasoning_content
        fields["tool_calls"] = [
            _call(call, unnamed, f"{place}.tool_calls.{index}")
            for index, call in enumerate(message.tool_calls or ())
        ]
    return fields


def _call(call: ToolCallPart, unnamed: Iterator[int], place: str) -> dict[str, Any]:
    arguments = arguments_of(call.function.arguments, f"{place}.function.arguments")
    return {"id": call.id or f"call_{next(unnamed)}", "name": call.function.name, "arguments": arguments}


def arguments_of(text: str, place: str) -> dict[str, Any]:
    """The arguments of a call, from JSON."""
    try:
        return json_object(text.encode())
    except ValueError as error:
        raise refused(place, f"it {error}") from error


def content_of(content: str | list[ContentPart] | None, place: str) -> str | list[dict[str, Any]]:
    """A content in the contract's words: a text, or parts."""
    if content is None or isinstance(content, str):
        return content or ""
    return [_part(part, f"{place}.{number}") for number, part in enumerate(content)]


def _part(part: ContentPart, place: str) -> dict[str, Any]:
    if part.type in TEXTS:
        text = part.refusal if part.type == "refusal" else part.text
        if text is None:
            raise refused(f"{place}.text", "it is missing")
        return {"type": "text", "text": text}
    if part.type in IMAGES:
        return _image(part.image_url, f"{place}.image_url")
    raise refused(f"{place}.type", f"{part.type!r} is not taken here, text and images are")


def _image(given: str | ImagePart | None, place: str) -> dict[str, Any]:
    url = given.url if isinstance(given, ImagePart) else given or ""
    found = DATA_URL.match(url)
    if found is None:
        raise refused(place, "give the image itself, as data:image/png;base64,...: no address is fetched")
    kind = found[1].lower().replace("jpg", "jpeg")
    return {"type": "image", "media_type": kind, "data": url[found.end() :]}


def refused(field: str, why: str) -> InvalidRequest:
    """The error that names a field."""
    return InvalidRequest(f"{field}: {why}", field=field)
