"""The prompt of a model: raw text or tokens, or the messages of a chat with the tools that it may call."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from schemas.requests.chat import Tool, ToolChoice


class Message(Protocol):
    """One turn of a chat, whichever class it comes in. `ChatMessage` of `schemas` has more than these two."""

    @property
    def role(self) -> str:
        """`system`, `user`, `assistant` or `tool`."""

    @property
    def content(self) -> str:
        """What was said."""


@dataclass(frozen=True, slots=True)
class ChatMessage:
    """The engine's own Message, for callers that have no other."""

    role: str
    content: str


@dataclass(frozen=True, slots=True)
class Chat:
    """A conversation, and the tools that its next turn may call."""

    messages: Sequence[Message]
    tools: tuple[Tool, ...] = ()
    tool_choice: ToolChoice = "auto"


@dataclass(frozen=True, slots=True)
class TokenPrompt:
    """Token ids, to which nothing is added."""

    tokens: Sequence[int]


Prompt = str | TokenPrompt | Chat | Sequence[Message]
"""A text stands for itself: control tokens in it are read as such. A sequence of messages is a Chat."""


def chat_of(prompt: Chat | Sequence[Message]) -> Chat:
    """Messages as a Chat without tools."""
    return prompt if isinstance(prompt, Chat) else Chat(prompt)
