"""One delivery of a command, its retry, and the protocol of a command handler.

A message of a work queue comes with an acknowledgement subject as its `reply`, in one of two forms (ADR-15):
`$JS.ACK.<stream>.<consumer>.<delivered>.<stream seq>.<consumer seq>.<timestamp>.<pending>`, or
`$JS.ACK.<domain>.<account>.<stream>.<consumer>.<delivered>. ... .<pending>`, and a token after that, maybe.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol, TypeVar

from nats.aio.msg import Msg

from schemas import subjects
from schemas.commands import Command
from schemas.errors import ChoirError

RETRY_DELAY_S = 0.5
NEVER_FRESH = sys.maxsize

SHORT_FORM = 9
"""Tokens of an acknowledgement subject without domain and account."""
SHORT_FORM_COUNT, LONG_FORM_COUNT = 4, 6
"""Where the delivery count stands among the tokens."""

CommandT = TypeVar("CommandT", bound=Command)
CommandT_contra = TypeVar("CommandT_contra", bound=Command, contravariant=True)


def _nothing() -> None:
    """For deliveries whose slot nobody waits for."""


class Retry(Exception):
    """Raised by a handler that failed for a reason that may pass."""

    def __init__(self, error: ChoirError, delay_s: float = RETRY_DELAY_S) -> None:
        super().__init__(error.message)
        self.error = error
        self.delay_s = delay_s


class HandedOver(Exception):
    """Raised by a handler that has given its delivery to another instance, which acknowledges the command."""


@dataclass(frozen=True)
class Delivery:
    """One delivered message, and what its acknowledgement subject tells.

    `fresh` means that nobody can have worked on it before. A delivery count of 1 alone does not say
    that: a broker that crashed forgets deliveries and acknowledgements. So a message is fresh only if
    it was also stored after this service last (re)connected. `stored_at_s` is when the broker stored it, by
    the broker's clock; `waiting` is how many more it has for this consumer. A worker calls `work_done` when
    only the storing of the outcome is left: the slot is free for the next command from then on.
    `refused` are the deliveries before this one in which nobody has tried. `maybe_poison`: the command may be
    why processes have died that worked on it. One that was `handed` over was pulled by another instance.
    """

    msg: Msg
    count: int
    sequence: int
    fresh: bool
    stored_at_s: float = 0.0
    waiting: int = 0
    work_done: Callable[[], None] = _nothing
    refused: int = 0
    maybe_poison: bool = False
    handed: bool = False
    now: Callable[[], float] = time.time

    @classmethod
    def of(
        cls,
        msg: Msg,
        floor: int,
        work_done: Callable[[], None] = _nothing,
        now: Callable[[], float] = time.time,
    ) -> Delivery:
        """Reads the acknowledgement subject.

        `floor` is the stream's last sequence at the last connection, `now` the broker's clock.
        """
        tokens = msg.reply.split(".")
        if len(tokens) < SHORT_FORM:
            return cls(msg, 1, 0, floor < 0, work_done=work_done, now=now)
        first = SHORT_FORM_COUNT if len(tokens) == SHORT_FORM else LONG_FORM_COUNT
        count, sequence, _, stored_ns, waiting = map(int, tokens[first : first + 5])
        stored_at_s = stored_ns / 1e9
        handed = subjects.HANDED_HEADER in (msg.headers or {})
        fresh = count == 1 and sequence > floor and not handed
        return cls(msg, count, sequence, fresh, stored_at_s, waiting, work_done, handed=handed, now=now)

    def queue_duration_ns(self) -> int:
        """How long ago the broker stored it, by its own clock; 0 where that is not known."""
        return max(0, int((self.now() - self.stored_at_s) * 1e9)) if self.stored_at_s else 0

    @property
    def attempt(self) -> int:
        """Which attempt to do the work this is, counted from 1."""
        return self.count - self.refused

    @property
    def request_id(self) -> str:
        """The last token of every command's subject."""
        return subjects.request_of(self.msg.subject)


class CommandHandler(Protocol[CommandT_contra]):
    """What a service does with its commands. All methods return only when an outcome is stored."""

    async def handle(self, command: CommandT_contra, delivery: Delivery) -> None:
        """Does the work. Raises Retry, a ChoirError that ends the command, or anything by mistake."""

    async def on_failure(self, command: CommandT_contra, error: ChoirError) -> None:
        """Stores an error as the outcome."""

    async def on_unreadable(self, request_id: str, error: ChoirError) -> None:
        """Stores an error as the result of a request whose command cannot even be read."""
