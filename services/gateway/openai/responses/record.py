"""What is kept of a response beside its result, so that any gateway can go on with it.

The result says what came of a request; what was asked, and how, only the record knows.
"""

from __future__ import annotations

from typing import Any

from pydantic import Field

from schemas.chat import ChatMessage
from schemas.commands import Ask
from schemas.message import Message

ID_PREFIX = "resp_"


class Record(Message):
    """One response.

    `ask` is what the mesh was asked. `conversation` is what was said up to here, without the answer and
    without `instructions`, which hold for one response alone. `echo` are fields of the request that a
    response repeats.
    """

    ask: Ask
    conversation: tuple[ChatMessage, ...]
    created_at_s: float
    model: str
    background: bool = False
    store: bool = True
    previous_response_id: str | None = None
    echo: dict[str, Any] = Field(default_factory=dict)

    @property
    def request_id(self) -> str:
        """The id of the request in the mesh."""
        return self.ask.request_id or ""

    @property
    def response_id(self) -> str:
        """The id that clients know."""
        return ID_PREFIX + self.request_id


def request_of(response_id: str) -> str | None:
    """The request behind a response's id; None for what is no such id."""
    return response_id.removeprefix(ID_PREFIX) if response_id.startswith(ID_PREFIX) else None
