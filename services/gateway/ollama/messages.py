"""Messages, tools and images as Ollama's clients write them, and as the mesh has them."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from typing import Any

from schemas.errors import InvalidRequest
from schemas.requests.chat import ToolCall
from services.gateway.http.body import Body, Many

MEDIA_TYPES = {"/9j/": "image/jpeg", "UklGR": "image/webp", "R0lGOD": "image/gif"}
"""What the base64 of a picture begins with; any other is taken for PNG."""


class CalledFunction(Body):
    """A function that a model has called, with its arguments."""

    name: str
    arguments: dict[str, Any] | None = None


class Call(Body):
    """A call in an assistant's turn."""

    id: str | None = None
    function: CalledFunction


class Message(Body):
    """One turn."""

    role: str
    content: str | None = None
    thinking: str | None = None
    images: Many[str] | None = None
    tool_calls: Many[Call] | None = None
    tool_call_id: str | None = None
    tool_name: str | None = None
    name: str | None = None


class Function(Body):
    """A function that a model may call."""

    name: str
    description: str | None = None
    parameters: dict[str, Any] | None = None


class ToolBody(Body):
    """A tool."""

    type: str = "function"
    function: Function


def chat_messages(messages: Sequence[Message]) -> list[dict[str, Any]]:
    """The turns for an `Ask`; one of the system that says nothing is left out."""
    numbers = itertools.count()
    waiting: list[tuple[str, str]] = []
    turns: list[dict[str, Any]] = []
    for message in messages:
        if message.role == "system" and not message.content:
            continue
        turn: dict[str, Any] = {"role": message.role, "content": message.content or ""}
        if message.role == "assistant":
            calls = [_call(call, next(numbers)) for call in message.tool_calls or ()]
            waiting += [(call["id"], call["name"]) for call in calls]
            turn |= {"thinking": message.thinking, "tool_calls": calls}
        elif message.role == "tool":
            turn |= _answered(message, waiting)
        if message.images:
            turn["images"] = images(message.images)
        turns.append(turn)
    return turns


def _call(call: Call, number: int) -> dict[str, Any]:
    """Ollama's calls need no id; the mesh's have one, by which the tool's answer names its call."""
    return {
        "id": call.id or f"call_{number}",
        "name": call.function.name,
        "arguments": call.function.arguments or {},
    }


def _answered(message: Message, waiting: list[tuple[str, str]]) -> dict[str, Any]:
    """Which call a tool's turn answers: the one that it names, else the first of that tool that waits."""
    name = message.tool_name or message.name
    found = next(
        (
            call
            for call in waiting
            if (message.tool_call_id or call[0]) == call[0] and (name or call[1]) == call[1]
        ),
        None,
    )
    if found is None:
        return {"tool_call_id": message.tool_call_id, "name": name}
    waiting.remove(found)
    return {"tool_call_id": found[0], "name": found[1]}


def images(given: Iterable[str]) -> list[dict[str, Any]]:
    """Pictures in base64. InvalidRequest for an address: the gateway fetches nothing."""
    return [_image(data) for data in given]


def _image(data: str) -> dict[str, Any]:
    if data.startswith(("http://", "https://", "data:")):
        raise InvalidRequest("images: give the picture itself in base64, no address", field="images")
    media_type = next((kind for start, kind in MEDIA_TYPES.items() if data.startswith(start)), "image/png")
    return {"type": "image", "media_type": media_type, "data": data}


def tools(given: Sequence[ToolBody] | None) -> list[dict[str, Any]]:
    """The tools for an `Ask`."""
    for tool in given or ():
        if tool.type != "function":
            raise InvalidRequest("tools: only functions can be called here", field="tools")
    functions = (tool.function.model_dump(exclude_none=True) for tool in given or ())
    return list(functions)


def call_object(call: ToolCall, index: int) -> dict[str, Any]:
    """A call as Ollama's clients read it: arguments are an object."""
    return {"id": call.id, "function": {"index": index, "name": call.name, "arguments": call.arguments}}
