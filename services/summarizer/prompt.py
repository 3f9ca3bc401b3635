"""What a summarising model is asked. Pure."""

from __future__ import annotations

from schemas.commands import ChatMessage, Summarize


def summary_request(command: Summarize, text: str) -> tuple[ChatMessage, ...]:
    """The request's template with `text` and the question in their places; the template has been checked."""
    content = command.summary_prompt.format(text=text.strip(), question=command.question)
    return (ChatMessage(role="user", content=content),)
