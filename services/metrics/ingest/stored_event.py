"""One message of the EVENTS stream, as it was stored."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import NamedTuple

from nats.aio.msg import Msg

from schemas import subjects
from services.chassis.nats.streams import Stored

TIME_HEADER = "Nats-Time-Stamp"


class StoredEvent(NamedTuple):
    """`sequence` and `stored_at_us` (microseconds since the epoch) are the stream's; the body is unread."""

    sequence: int
    stored_at_us: int
    subject: str
    body: bytes

    @property
    def kind(self) -> str:
        """What the subject says that it is."""
        return self.subject.rsplit(".", 1)[-1]


def from_delivery(msg: Msg) -> StoredEvent:
    """A message that a consumer delivered: its acknowledgement subject says which it is.

    `$JS.ACK.<stream>.<consumer>.<delivered>.<stream seq>.<consumer seq>.<timestamp>.<pending>`
    """
    tokens = msg.reply.split(".")
    return StoredEvent(int(tokens[-4]), int(tokens[-2]) // 1_000, msg.subject, msg.data)


def from_direct_get(msg: Msg) -> StoredEvent:
    """A message that was read from the stream itself: its headers say which it is."""
    return _of(msg.headers or {}, msg.data)


def from_stored(stored: Stored) -> StoredEvent:
    """The same, as the server tells of it that leads the stream."""
    return _of(stored.headers, stored.data)


def _of(headers: Mapping[str, str], body: bytes) -> StoredEvent:
    return StoredEvent(
        int(headers[subjects.SEQUENCE_HEADER]),
        microseconds(headers[TIME_HEADER]),
        headers[subjects.SUBJECT_HEADER],
        body,
    )


def microseconds(stamp: str) -> int:
    """A time in RFC 3339 with up to nine digits after the point, in microseconds since the epoch."""
    whole, _, fraction = stamp.removesuffix("Z").partition(".")
    seconds = int(datetime.fromisoformat(f"{whole}+00:00").timestamp())
    return seconds * 1_000_000 + int(fraction.ljust(6, "0")[:6] or 0)
