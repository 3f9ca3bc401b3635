"""The items of a response's output: what the model thought, what it said, what it wants called."""

from __future__ import annotations

from typing import Any

Item = dict[str, Any]


def reasoning(response_id: str, text: str, status: str = "completed") -> Item:
    """What the model thought before it said anything."""
    content = [{"type": "reasoning_text", "text": text}] if text else []
    return {
        "id": f"rs_{response_id}",
        "type": "reasoning",
        "status": status,
        "summary": [],
        "content": content,
    }


def message(response_id: str, text: str | None, status: str = "completed") -> Item:
    """What the model said; None while it has said nothing."""
    return {
        "id": f"msg_{response_id}",
        "type": "message",
        "status": status,
        "role": "assistant",
        "content": [] if text is None else [text_part(text)],
    }


def text_part(text: str) -> Item:
    """A text inside a message."""
    return {"type": "output_text", "text": text, "annotations": [], "logprobs": []}


def function_call(
    response_id: str, number: int, call_id: str, name: str, arguments: str, status: str = "completed"
) -> Item:
    """A tool that the model wants called; `arguments` is JSON."""
    return {
        "id": f"fc_{response_id}_{number}",
        "type": "function_call",
        "status": status,
        "call_id": call_id,
        "name": name,
        "arguments": arguments,
    }
