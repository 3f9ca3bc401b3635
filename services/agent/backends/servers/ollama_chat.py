"""Conversations, tools and calls in the form of Ollama's API, and back."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from ollama import Message

from schemas.commands import ChatMessage
from schemas.errors import InvalidRequest
from schemas.requests.chat import Tool, ToolCall, is_forced
from schemas.requests.sampling import Sampling
from services.agent.backends.servers.calls import made_call
from services.tasks.generate import Conversation


def check_possible(conversation: Conversation, sampling: Sampling) -> None:
    """Raises InvalidRequest for what Ollama's API has no field for."""
    if sampling.grammar is not None:
        raise InvalidRequest(
            "sampling.grammar: Ollama takes a JSON schema, and no grammar; use json_schema",
            field="sampling.grammar",
        )
    if sampling.logit_bias:
        raise InvalidRequest(
            "sampling.logit_bias: Ollama has no such option; leave it out or ask another model",
            field="sampling.logit_bias",
        )
    if conversation.tools and is_forced(conversation.tool_choice):
        raise InvalidRequest(
            "tool_choice: Ollama cannot be told that a call is required; set it to auto or ask another model",
            field="tool_choice",
        )


def turns(messages: Iterable[ChatMessage]) -> list[dict[str, Any]]:
    """The messages."""
    return [_turn(message) for message in messages]


def _turn(message: ChatMessage) -> dict[str, Any]:
    turn: dict[str, Any] = {"role": message.role, "content": message.content}
    if message.images:
        turn["images"] = [image.data for image in message.images]
    if message.thinking:
        turn["thinking"] = message.thinking
    if message.tool_calls:
        turn["tool_calls"] = [
            {"function": {"name": call.name, "arguments": call.arguments}} for call in message.tool_calls
        ]
    if message.name is not None:
        turn["tool_name"] = message.name
    return turn


def described(conversation: Conversation) -> list[dict[str, Any]] | None:
    """The tools that may be called."""
    tools = () if conversation.tool_choice == "none" else conversation.tools
    return [function(tool) for tool in tools] or None


def function(tool: Tool) -> dict[str, Any]:
    """A tool, as both APIs have it."""
    described = {"name": tool.name, "description": tool.description or "", "parameters": tool.parameters}
    return {"type": "function", "function": described}


def calls_of(message: Message, first: int) -> tuple[ToolCall, ...]:
    """The calls in a piece of an answer, the first being number `first` of it."""
    called = message.tool_calls or ()
    return tuple(
        made_call(call.function.name, dict(call.function.arguments), None, number)
        for number, call in enumerate(called, first)
    )
