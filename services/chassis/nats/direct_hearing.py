"""Hands what comes for one subscription on as it is read: no queue, no task, no headers that nobody reads.

nats-py (2.16) searches each message with regular expressions, copies it twice, makes an object of it with all
its headers, and puts that into a queue for the task of its subscription. Whoever has one subscription for the
replies to all its requests hands each on to whoever waits, which is another task.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from nats.aio.client import Client
from nats.aio.subscription import Subscription
from nats.protocol.parser import AWAITING_CONTROL_LINE

Heard = Callable[[str, bytes, bytes], None]
"""Takes the subject of a message, its headers as they came (empty without any), and its payload. It neither
waits nor raises: the connection is read by whoever calls it."""
COMMAND, END = b"HMSG ", b"\r\n"


def hear_directly(client: Client, subscription: Subscription, heard: Heard) -> None:
    """From now on `heard` is called for each message of a subscription of this client that has no callback
    of its own, also after the client has connected anew."""
    parser = client._ps
    process, parse = client._process_msg, parser.parse
    number = subscription._id
    sid = str(number).encode()

    async def parse_any(data: bytes = b"") -> None:
        if not parser.buf and parser.state == AWAITING_CONTROL_LINE:
            data = data[_heard_of(data, sid, heard) :]
        if data:
            await parse(data)

    async def process_any(sid: int, subject: bytes, reply: bytes, data: bytes, headers: Any) -> None:
        if sid == number:
            heard(subject.decode(), headers or b"", data)
        else:
            await process(sid, subject, reply, data, headers)

    setattr(parser, "parse", parse_any)  # noqa: B010  # methods of nats-py's, for this one client
    setattr(client, "_process_msg", process_any)  # noqa: B010


def _heard_of(data: bytes, sid: bytes, heard: Heard) -> int:
    """Passes on messages with headers that are whole, from the beginning of what was read, as long as they
    are of one subscription; how many bytes these are."""
    at = 0
    while data.startswith(COMMAND, at) and (line_end := data.find(END, at)) > 0:
        words = data[at + len(COMMAND) : line_end].split(b" ")
        if len(words) != 4 or words[1] != sid:
            break
        begin = line_end + len(END)
        body, end = begin + int(words[2]), begin + int(words[3])
        if end + len(END) > len(data):
            break
        heard(words[0].decode(), data[begin:body], data[body:end])
        at = end + len(END)
    return at
