"""The answer as one object: a message of blocks."""

from __future__ import annotations

from typing import Any

from schemas.replies import Result
from services.gateway.anthropic.body import MessagesBody
from services.gateway.requests.outcome import Choice, Usage, choices, usage

PREFIX = "msg_"
REASONS = {"stop": "end_turn", "length": "max_tokens", "tool_calls": "tool_use"}


def message(body: MessagesBody, request_id: str, result: Result) -> dict[str, Any]:
    """The whole answer."""
    choice = said(body, result)
    whole = empty_message(body.model, request_id)
    used = usage(result)
    return {
        **whole,
        "content": blocks(choice),
        **ending(choice),
        "usage": usage_object(used),
    }


def said(body: MessagesBody, result: Result) -> Choice:
    """What the result says, as far as the client wants to hear it."""
    choice = choices(result, with_members=body.shows_thinking)[0]
    thinking = choice.thinking if body.shows_thinking else None
    calls = choice.tool_calls[:1] if body.one_call else choice.tool_calls
    return Choice(choice.text, thinking, calls, choice.cut, (), choice.stop_string)


def ending(choice: Choice) -> dict[str, Any]:
    """Why the text ended, and which of the stop sequences it was."""
    if choice.finish_reason == "stop" and choice.stop_string is not None:
        return {"stop_reason": "stop_sequence", "stop_sequence": choice.stop_string}
    return {"stop_reason": REASONS[choice.finish_reason], "stop_sequence": None}


def empty_message(model: str, request_id: str) -> dict[str, Any]:
    """A message of which nothing is known yet but whose it is."""
    return {
        "id": PREFIX + request_id,
        "type": "message",
        "role": "assistant",
        "model": model,
        "content": [],
        "stop_reason": None,
        "stop_sequence": None,
        "usage": usage_object(Usage(0, 0, 0)),
    }


def usage_object(used: Usage) -> dict[str, int]:
    """The tokens that were used."""
    return {
        "input_tokens": used.prompt_tokens,
        "output_tokens": used.generated_tokens,
        "cache_creation_input_tokens": 0,
        "cache_read_input_tokens": 0,
    }


def blocks(choice: Choice) -> list[dict[str, Any]]:
    """What was thought, what was said, what is to be called."""
    content: list[dict[str, Any]] = []
    if choice.thinking:
        content.append({"type": "thinking", "thinking": choice.thinking, "signature": ""})
    if choice.text:
        content.append({"type": "text", "text": choice.text})
    for call in choice.tool_calls:
        content.append({"type": "tool_use", "id": call.id, "name": call.name, "input": dict(call.arguments)})
    return content
