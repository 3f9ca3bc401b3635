"""The prompt of a model: raw text, or the messages of a chat."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol


class Message(Protocol):
    """One turn of a chat, whichever class it comes in."""

    @property
    def role(self) -> str:
        """`system`, `user` or `assistant`."""

    @property
    def content(self) -> str:
        """What was said."""


@dataclass(frozen=True, slots=True)
class ChatMessage:
    """The engine's own Message, for callers that have no other."""

    role: str
    content: str


Prompt = str | Sequence[Message]
