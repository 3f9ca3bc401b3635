"""A conversation: what has been said, and who is asked next. Pure."""

from __future__ import annotations

from dataclasses import dataclass, field

from schemas.commands import Ask, ChatMessage
from services.client.request_builder import build_ask


@dataclass
class Conversation:
    """`model` is asked alone; without it all models answer and `strategies` decide."""

    model: str | None = None
    strategies: tuple[str, ...] = ()
    messages: list[ChatMessage] = field(default_factory=list)

    @property
    def partner(self) -> str:
        """Who is asked next."""
        return self.model or f"all models, {', '.join(self.strategies) or 'majority'}"

    def next_ask(self, line: str) -> Ask:
        """What has been said so far and one more line, as a request. InvalidRequest if it cannot be one."""
        messages = [*self.messages, ChatMessage(role="user", content=line)]
        options = {"model": self.model} if self.model else {"strategies": self.strategies}
        return build_ask(None, {"messages": messages, **options}, stream=True)  # type: ignore[typeddict-item]

    def remember(self, line: str, answer: str | None) -> None:
        """Keeps a line and what was answered; a line without an answer is as if it had not been said."""
        if answer:
            self.messages.append(ChatMessage(role="user", content=line))
            self.messages.append(ChatMessage(role="assistant", content=answer))

    def forget(self) -> None:
        """Begins anew."""
        self.messages.clear()
