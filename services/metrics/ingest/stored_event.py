"""One message of the EVENTS stream, as it was stored."""

from __future__ import annotations

from datetime import datetime
from typing import NamedTuple

from nats.aio.msg import Msg

from schemas import subjects
from services.chassis.nats.reading import Stored


class StoredEvent(NamedTuple):
    """`sequence` and `stored_at_us` (microseconds since the epoch) are the stream's; the body is unread."""

    sequence: int
    stored_at_us: int
    subject: str
    body: bytes

    @property
    def kind(self) -> str:
        """The kind of event, from the subject."""
        return self.subject.rsplit(".", 1)[-1]


def from_delivery(msg: Msg) -> StoredEvent:
    """A message that a consumer delivered: its acknowledgement subject says which it is.

    `$JS.ACK.<stream>.<consumer>.<delivered>.<stream seq>.<consumer seq>.<timestamp>.<pending>`
    """
    tokens = msg.reply.split(".")
    return StoredEvent(int(tokens[-4]), int(tokens[-2]) // 1_000, msg.subject, msg.data)


def from_stored(stored: Stored) -> StoredEvent:
    """A message that was read from the stream itself: its headers say when it was stored."""
    return StoredEvent(
        stored.sequence, microseconds(stored.headers[subjects.STORED_AT_HEADER]), stored.subject, stored.data
    )


def microseconds(stamp: str) -> int:
    """A time in RFC 3339 with up to nine digits after the point, in microseconds since the epoch."""
    whole, _, fraction = stamp.removesuffix("Z").partition(".")
    seconds = int(datetime.fromisoformat(f"{whole}+00:00").timestamp())
    return seconds * 1_000_000 + int(fraction.ljust(6, "0")[:6] or 0)
