"""Conversations, tools and calls in the form of OpenAI's API, and back."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, cast

from openai.types.chat import ChatCompletionMessageParam
from openai.types.chat.chat_completion_chunk import ChoiceDelta

from schemas.commands import ChatMessage
from schemas.errors import GenerationFailed
from schemas.requests.chat import NamedTool, ToolCall
from services.agent.backends.servers.calls import MOST_CALLS, made_call
from services.agent.backends.servers.ollama_chat import function
from services.tasks.generate import Conversation

THINKING_FIELDS = ("reasoning_content", "reasoning")
"""Where servers put what a model thinks: the API has no field for it."""


def turns(messages: Iterable[ChatMessage]) -> list[ChatCompletionMessageParam]:
    """The messages."""
    return [cast(ChatCompletionMessageParam, _turn(message)) for message in messages]


def _turn(message: ChatMessage) -> dict[str, Any]:
    turn: dict[str, Any] = {"role": message.role, "content": _content(message)}
    if message.tool_calls:
        turn["tool_calls"] = [
            {
                "id": call.id,
                "type": "function",
                "function": {
                    "name": call.name,
                    "arguments": json.dumps(call.arguments, ensure_ascii=False),
                },
            }
            for call in message.tool_calls
        ]
    if message.tool_call_id is not None:
        turn["tool_call_id"] = message.tool_call_id
    return turn


def _content(message: ChatMessage) -> Any:
    if not message.images:
        return message.content
    text = [{"type": "text", "text": message.content}] if message.content else []
    images = (f"data:{image.media_type};base64,{image.data}" for image in message.images)
    return [*text, *({"type": "image_url", "image_url": {"url": url}} for url in images)]


def tool_fields(conversation: Conversation) -> dict[str, Any]:
    """The fields that say which tools there are, and whether they have to be called."""
    if not conversation.tools:
        return {}
    choice = conversation.tool_choice
    named: Any = choice
    if isinstance(choice, NamedTool):
        named = {"type": "function", "function": {"name": choice.name}}
    return {"tools": [function(tool) for tool in conversation.tools], "tool_choice": named}


def thinking_of(delta: ChoiceDelta) -> str:
    """What a piece of an answer has of thinking."""
    extra = delta.model_extra or {}
    said = (extra.get(field) for field in THINKING_FIELDS)
    return next((text for text in said if isinstance(text, str)), "")


@dataclass
class _Partial:
    """A call of which pieces have come."""

    id: str | None = None
    name: str = ""
    arguments: str = ""


class PartialCalls:
    """Calls that come in pieces: the name first, then the arguments as pieces of a JSON text."""

    def __init__(self) -> None:
        self._calls: dict[int, _Partial] = {}

    def take(self, delta: ChoiceDelta) -> int:
        """The next pieces; how many characters there were. Raises GenerationFailed for far too many calls."""
        length = 0
        for piece in delta.tool_calls or ():
            call = self._calls.setdefault(piece.index or 0, _Partial())
            if len(self._calls) > MOST_CALLS:
                raise GenerationFailed(f"the model wants more than {MOST_CALLS} tools called at once")
            call.id = piece.id or call.id
            if piece.function is not None:
                call.name += piece.function.name or ""
                call.arguments += piece.function.arguments or ""
                length += len(piece.function.name or "") + len(piece.function.arguments or "")
        return length

    def whole(self) -> tuple[ToolCall, ...]:
        """All calls, at the end. Raises GenerationFailed for arguments that are no JSON."""
        return tuple(
            made_call(call.name, _arguments(call.arguments), call.id, number)
            for number, (_, call) in enumerate(sorted(self._calls.items()))
        )


def _arguments(text: str) -> Any:
    try:
        return json.loads(text or "{}")
    except (ValueError, RecursionError) as error:
        raise GenerationFailed("the model has written a tool call whose arguments are no JSON") from error
