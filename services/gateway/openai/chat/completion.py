"""The answer to a chat completion as one object."""

from __future__ import annotations

from typing import Any

from schemas.replies import Result
from schemas.requests.chat import ToolCall
from services.gateway.openai.chat.body import ChatBody
from services.gateway.openai.replying.outcome import Choice, choices, json_arguments, logprobs_object, usage

PREFIX = "chatcmpl-"


def completion(body: ChatBody, request_id: str, result: Result) -> dict[str, Any]:
    """The whole answer."""
    said = chat_choices(body, result)
    return {
        "id": PREFIX + request_id,
        "object": "chat.completion",
        "created": int(result.accepted_at_s),
        "model": body.model,
        "choices": [_choice(body, number, choice) for number, choice in enumerate(said)],
        "usage": usage(result),
    }


def chat_choices(body: ChatBody, result: Result) -> tuple[Choice, ...]:
    """The texts; an ensemble's answers are its thoughts, for whoever asked for some."""
    return choices(result, with_members=body.reasoning_effort not in (None, "none"))


def _choice(body: ChatBody, number: int, choice: Choice) -> dict[str, Any]:
    calls = called(body, choice)
    message: dict[str, Any] = {"role": "assistant", "content": choice.text, "refusal": None}
    if calls:
        message |= {"content": choice.text or None, "tool_calls": [tool_call(call) for call in calls]}
    if choice.thinking:
        message["reasoning_content"] = choice.thinking
    return {
        "index": number,
        "message": message,
        "logprobs": said_logprobs(body, choice.logprobs),
        "finish_reason": choice.finish_reason,
    }


def called(body: ChatBody, choice: Choice) -> tuple[ToolCall, ...]:
    """The calls: one at most, if the client takes no more."""
    return choice.tool_calls[:1] if body.parallel_tool_calls is False else choice.tool_calls


def tool_call(call: ToolCall) -> dict[str, Any]:
    """A call as a message has it."""
    function = {"name": call.name, "arguments": json_arguments(call.arguments)}
    return {"id": call.id, "type": "function", "function": function}


def said_logprobs(body: ChatBody, tokens: tuple[dict[str, Any], ...]) -> dict[str, Any] | None:
    """The probabilities of tokens, if the client asked for them."""
    return logprobs_object(tokens, body.top_logprobs or 0) if body.logprobs else None
