"""Finds how far the oldest bytes of a stream reach.

A stream tells only how large it is as a whole, so its oldest messages are read, some at a time (ADR-31), and
counted as the broker's file store counts them.
"""

from __future__ import annotations

import json

import nats.errors
from nats.aio.client import Client
from nats.aio.msg import Msg

from schemas import subjects
from schemas.errors import BrokerUnavailable

RECORD_BYTES = 30
"""What the store writes for a message beside its subject and its content."""
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
    inbox = client.new_inbox()
    replies = await client.subscribe(inbox)
    try:
        while left > 0:
            query = {"seq": sequence, "batch": BATCH, "max_bytes": BATCH_BYTES}
            await client.publish(subjects.direct_get(stream), json.dumps(query).encode(), reply=inbox)
            found = False
            while "Status" not in ((msg := await replies.next_msg(READ_TIMEOUT_S)).headers or {}):
                found = True
                if left > 0:
                    left -= stored_bytes(msg)
                    sequence = int((msg.headers or {})[subjects.SEQUENCE_HEADER]) + 1
            if not found:
                break  # it holds less
    except nats.errors.TimeoutError as error:
        raise BrokerUnavailable(f"stream {stream} could not be read") from error
    finally:
        await replies.unsubscribe()
    return sequence


def stored_bytes(msg: Msg) -> int:
    """What a message that was read takes in its stream; `state.bytes` is the sum of these."""
    headers = msg.headers or {}
    lines = [
        len(name) + len(value) + HEADER_LINE_BYTES
        for name, value in headers.items()
        if not name.startswith(BROKERS_OWN)
    ]
    own = HEADER_LENGTH_BYTES + EMPTY_HEADERS_BYTES + sum(lines) if lines else 0
    return RECORD_BYTES + len(headers[subjects.SUBJECT_HEADER]) + own + len(msg.data)
