"""`python -m loadtest.bench.flood HOST PORT SUBJECT COUNT OVER_S`: sends the request on stdin ever again.

At an even pace; an empty line says that it begins, a line of JSON how the requests were answered.

Plain bytes over a socket at a low priority: the flood itself takes as little of the machine as may be.
"""

from __future__ import annotations

import json
import os
import re
import select
import socket
import sys
import time
from collections import Counter

from pydantic import BaseModel

INBOX = b"_INBOX.flood."
REPLY = re.compile(rb"MSG " + re.escape(INBOX) + rb"(\d+) ")
OVERLOADED = b'"code":"overloaded"'
CHUNK_BYTES = 1 << 20
PAUSE_S = 0.005
PATIENCE_S = 60.0
NICENESS = 10


class Outcome(BaseModel):
    """Of the requests that were sent: how many had a reply, how many of these several, how many replies said
    `overloaded`, and how long all took."""

    sent: int
    answered: int
    doubled: int
    overloaded: int
    took_s: float


def connect(host: str, port: int) -> socket.socket:
    """A connection without credentials that hears the replies."""
    link = socket.create_connection((host, port))
    options = {"verbose": False, "headers": True, "no_responders": True, "lang": "bytes", "version": "1"}
    link.sendall(b"CONNECT %s\r\nSUB %s* 1\r\nPING\r\n" % (json.dumps(options).encode(), INBOX))
    heard = b""
    while b"PONG\r\n" not in heard:
        heard += link.recv(CHUNK_BYTES)
    link.setblocking(False)
    return link


def flood(link: socket.socket, subject: str, body: bytes, count: int, over_s: float) -> Outcome:
    """Sends `count` requests within `over_s` seconds, each with a reply subject of its own, and waits for the
    replies."""
    replies, unsent, sent, answered = bytearray(), b"", 0, 0
    began_s = time.perf_counter()
    while answered < count and (passed_s := time.perf_counter() - began_s) < over_s + PATIENCE_S:
        due = min(count, int(count * passed_s / over_s) + 1)
        unsent += b"".join(
            b"PUB %s %s%d %d\r\n%s\r\n" % (subject.encode(), INBOX, number, len(body), body)
            for number in range(sent, due)
        )
        sent = due
        readable, writable, _ = select.select([link], [link] if unsent else [], [], PAUSE_S)
        if writable:
            unsent = unsent[link.send(unsent) :]
        if readable:
            replies += link.recv(CHUNK_BYTES)
        if sent == count:
            answered = len(set(REPLY.findall(replies)))
        time.sleep(PAUSE_S)
    took_s = time.perf_counter() - began_s
    times = Counter(REPLY.findall(replies))
    return Outcome(
        sent=sent,
        answered=len(times),
        doubled=sum(one > 1 for one in times.values()),
        overloaded=replies.count(OVERLOADED),
        took_s=took_s,
    )


def main() -> None:
    """Does what the command line says."""
    os.nice(NICENESS)
    host, port, subject, count, over_s = sys.argv[1:]
    with connect(host, int(port)) as link:
        body = sys.stdin.buffer.read()
        print(flush=True)  # noqa: T201
        outcome = flood(link, subject, body, int(count), float(over_s))
    print(outcome.model_dump_json())  # noqa: T201


if __name__ == "__main__":
    main()
