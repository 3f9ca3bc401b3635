"""What is kept of an answer that clients may come back to, beside its result."""

from __future__ import annotations

from typing import Any

from pydantic import Field

from schemas.commands import Ask
from schemas.message import Message, Name
from schemas.requests.chat import ChatMessage


class ResponseRecord(Message):
    """A response: what its result does not say, so that any gateway can go on with it.

    `ask` is what the mesh was asked, and has a request id. `conversation` is what was said up to here,
    without the answer and without instructions that hold for this answer alone. `model` is the name that the
    client used, `previous` the request that this one goes on from, `echo` are fields that are told as they
    were given. With `background` it goes on when its client has gone.
    """

    ask: Ask
    conversation: tuple[ChatMessage, ...]
    created_at_s: float
    model: Name
    background: bool = False
    previous: str | None = None
    echo: dict[str, Any] = Field(default_factory=dict)
