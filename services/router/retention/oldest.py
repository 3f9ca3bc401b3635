"""Finds how far the oldest bytes of a stream reach.

A stream tells only how large it is as a whole, so its oldest messages are read, some at a time (ADR-31), and
counted as the broker's file store counts them.
"""

from __future__ import annotations

from nats.aio.client import Client

from services.chassis.nats.reading import Stored, get_many

RECORD_BYTES = 30
"""Bytes that the store writes for a message, beside its subject and its content."""
HEADER_LENGTH_BYTES = 4
BATCH = 512
BATCH_BYTES = 4 * 1024 * 1024
READ_TIMEOUT_S = 5.0
BROKERS_OWN = "Nats-"
"""How the names of headers begin that the broker adds when a message is read."""
EMPTY_HEADERS_BYTES = len(b"NATS/1.0\r\n\r\n")
HEADER_LINE_BYTES = len(b": \r\n")


async def cut_after(client: Client, stream: str, first: int, size: int) -> int:
    """The sequence before which a stream has `size` bytes, or at most one message more.

    `first` is the sequence of its oldest message. BrokerUnavailable if the broker does not answer.
    """
    left, sequence = size, first
    while left > 0:
        query = {"seq": sequence, "batch": BATCH, "max_bytes": BATCH_BYTES}
        batch = await get_many(client, stream, query, patience_s=READ_TIMEOUT_S)
        if not batch:
            break  # it holds less
        for stored in batch:
            if left > 0:
                left -= stored_bytes(stored)
                sequence = stored.sequence + 1
    return sequence


def stored_bytes(stored: Stored) -> int:
    """The bytes that a message takes in its stream; `state.bytes` is their sum."""
    lines = [
        len(name) + len(value) + HEADER_LINE_BYTES
        for name, value in stored.headers.items()
        if not name.startswith(BROKERS_OWN)
    ]
    own = HEADER_LENGTH_BYTES + EMPTY_HEADERS_BYTES + sum(lines) if lines else 0
    return RECORD_BYTES + len(stored.subject) + own + len(stored.data)
