"""Prompts that a chat front end writes for itself: a title, tags, questions that could follow. Pure."""

from __future__ import annotations

BEGINNING = "### Task:"
HISTORY = "<chat_history>"
"""Open WebUI puts the conversation between such tags, below what it wants of it."""


def is_front_end_task(prompt: str) -> bool:
    """Whether a prompt is of this kind."""
    return prompt.lstrip().startswith(BEGINNING) and HISTORY in prompt
