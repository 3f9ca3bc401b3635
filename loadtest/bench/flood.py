"""`python -m loadtest.bench.flood HOST PORT`: does what the order on stdin says (JSON, `Order`).

An empty line says that it begins, a line of JSON (`Outcome`) how the requests were answered. Then it hangs up
without a word.

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
CODE = re.compile(rb'"code":"([a-z_]+)"')
ANSWERED = "answered"
OVERLOADED = "overloaded"
MESSAGES = (b"MSG", b"HMSG")
END = b"\r\n"
CHUNK_BYTES = 1 << 20
PAUSE_S = 0.005
PATIENCE_S = 60.0
NICENESS = 10


class Order(BaseModel):
    """`count` times the request `body` on `subject`, at an even pace within `over_s` seconds.

    For `unread_s` seconds after the last one nothing is read. Replies are waited for until all requests have
    one, or `patience_s` more. Each `{number}` in the body is the number of the request.
    """

    subject: str
    body: str = "{}"
    count: int
    over_s: float = 2.0
    unread_s: float = 0.0
    patience_s: float = PATIENCE_S


class Outcome(BaseModel):
    """Of the requests that were sent: how many had a reply, how many of these several, what the first replies
    said (`answered`, or the code of an error), how long all took, and whether the broker hung up."""

    sent: int
    answered: int
    doubled: int
    codes: dict[str, int]
    took_s: float
    hung_up: bool = False

    @property
    def overloaded(self) -> int:
        """How many were told so."""
        return self.codes.get(OVERLOADED, 0)


class Replies:
    """The replies to numbered requests, from the bytes that the broker sends."""

    def __init__(self) -> None:
        self._rest = b""
        self.times: Counter[int] = Counter()
        self.codes: Counter[str] = Counter()

    def take(self, data: bytes) -> None:
        """Counts what is whole, and keeps the rest for later."""
        data, at = self._rest + data, 0
        while (line_end := data.find(END, at)) >= 0:
            words, begin = data[at:line_end].split(), line_end + len(END)
            after = begin
            if words and words[0] in MESSAGES:
                after = begin + int(words[-1]) + len(END)
                if after > len(data):
                    break
                self._count(int(words[1].removeprefix(INBOX)), data[begin:after])
            at = after
        self._rest = data[at:]

    def _count(self, number: int, reply: bytes) -> None:
        if not self.times[number]:
            code = CODE.search(reply)
            self.codes[code[1].decode() if code else ANSWERED] += 1
        self.times[number] += 1


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


def request(order: Order, number: int) -> bytes:
    """One request, as it is published, with a reply subject of its own."""
    body = order.body.replace("{number}", str(number)).encode()
    return b"PUB %s %s%d %d\r\n%s\r\n" % (order.subject.encode(), INBOX, number, len(body), body)


def flood(link: socket.socket, order: Order) -> Outcome:
    """Sends all requests, and waits for the replies."""
    replies, unsent, sent, heard_all_s = Replies(), b"", 0, order.over_s + order.unread_s + order.patience_s
    began_s, hung_up = time.perf_counter(), False
    while len(replies.times) < order.count and not hung_up:
        passed_s = time.perf_counter() - began_s
        if passed_s > heard_all_s:
            break
        due = min(order.count, int(order.count * passed_s / order.over_s) + 1)
        unsent += b"".join(request(order, number) for number in range(sent, due))
        sent = due
        reads = not order.unread_s or (not unsent and passed_s > order.over_s + order.unread_s)
        readable, writable, _ = select.select([link] if reads else [], [link] if unsent else [], [], PAUSE_S)
        try:
            if writable:
                unsent = unsent[link.send(unsent) :]
            if readable:
                data = link.recv(CHUNK_BYTES)
                replies.take(data)
                hung_up = not data
        except OSError:
            hung_up = True
        time.sleep(PAUSE_S)
    return Outcome(
        sent=sent,
        answered=len(replies.times),
        doubled=sum(one > 1 for one in replies.times.values()),
        codes=dict(replies.codes),
        took_s=time.perf_counter() - began_s,
        hung_up=hung_up,
    )


def main() -> None:
    """Does what the command line and the order say."""
    os.nice(NICENESS)
    host, port = sys.argv[1:]
    order = Order.model_validate_json(sys.stdin.buffer.read())
    with connect(host, int(port)) as link:
        print(flush=True)  # noqa: T201
        outcome = flood(link, order)
    print(outcome.model_dump_json())  # noqa: T201


if __name__ == "__main__":
    main()
