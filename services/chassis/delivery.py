"""One command on its way through a work loop: its delivery, its retry, and who works on it.

A message of a work queue comes with an acknowledgement subject as its `reply`:
`$JS.ACK.<stream>.<consumer>.<delivered>.<stream seq>.<consumer seq>.<timestamp>.<pending>`.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from typing import Protocol, TypeVar

from nats.aio.msg import Msg

from schemas.commands import Command
from schemas.errors import ChoirError

RETRY_DELAY_S = 0.5
NEVER_FRESH = sys.maxsize

CommandT = TypeVar("CommandT", bound=Command)
CommandT_contra = TypeVar("CommandT_contra", bound=Command, contravariant=True)


class Retry(Exception):
    """Raised by a handler that failed for a reason that may pass."""

    def __init__(self, error: ChoirError, delay_s: float = RETRY_DELAY_S) -> None:
        super().__init__(error.message)
        self.error = error
        self.delay_s = delay_s


@dataclass(frozen=True)
class Delivery:
    """One delivered message, and what its acknowledgement subject tells.

    `fresh` means that nobody can have worked on it before. A delivery count of 1 alone does not say
    that: a broker that crashed forgets deliveries and acknowledgements. So a message is fresh only if
    it was also stored after this service last (re)connected.
    """

    msg: Msg
    count: int
    sequence: int
    fresh: bool

    @classmethod
    def of(cls, msg: Msg, floor: int) -> Delivery:
        """Reads the acknowledgement subject; `floor` is the stream's last sequence at the last connection."""
        tokens = msg.reply.split(".")
        count, sequence = (int(tokens[-5]), int(tokens[-4])) if len(tokens) >= 9 else (1, 0)
        return cls(msg, count, sequence, count == 1 and sequence > floor)

    @property
    def request_id(self) -> str:
        """The last token of every command's subject."""
        return self.msg.subject.rsplit(".", 1)[-1]


class Worker(Protocol[CommandT_contra]):
    """What a service does with its commands. All methods return only when an outcome is stored."""

    async def handle(self, command: CommandT_contra, delivery: Delivery) -> None:
        """Does the work. Raises Retry, a ChoirError that ends the command, or anything by mistake."""

    async def give_up(self, command: CommandT_contra, error: ChoirError) -> None:
        """Stores an error as the outcome."""

    async def refuse(self, request_id: str, error: ChoirError) -> None:
        """Stores an error as the result of a request whose command cannot even be read."""
