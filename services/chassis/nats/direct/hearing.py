"""Takes messages as they are read: no queue, no task, no headers that nobody reads.

nats-py (2.16) searches each message with regular expressions, copies it twice, makes an object of it with all
its headers, and puts that into a queue for the task of its subscription. That is more than what is done with
some: a reply that is handed on to whoever waits for it, which is another task; a request that is refused
whatever it says.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import cast

from nats.aio.client import Client
from nats.aio.subscription import Subscription
from nats.protocol.parser import AWAITING_MSG_PAYLOAD, Parser

MESSAGES = (b"MSG", b"HMSG")
END = b"\r\n"

Take = Callable[[list[bytes], bytes, int, int], bool]
"""Says whether it has taken a message; what it has not taken goes the way of nats-py. It has the words of the
message's first line, what was read, and where headers and payload begin and end in that. It neither waits nor
raises: the connection is read by whoever calls it."""
Heard = Callable[[str, bytes, bytes], None]
"""Takes the subject of a message, its headers as they came (empty without any), and its payload. It neither
waits nor raises."""


def hear_directly(client: Client, subscription: Subscription, heard: Heard) -> None:
    """From now on `heard` is called for each message of a subscription of this client that has no callback
    of its own, also after the client has connected anew."""

    def take(words: list[bytes], read: bytes, begin: int, end: int) -> bool:
        body = begin + headers_bytes(words)
        heard(words[1].decode(), read[begin:body], read[body:end])
        return True

    take_directly(client, subscription, take)


def take_directly(client: Client, subscription: Subscription, take: Take) -> None:
    """From now on `take` has each message of a subscription of this client before nats-py has it, also after
    the client has connected anew."""
    DirectParser.of(client).takers[str(subscription._id).encode()] = take


def stop_taking(client: Client, subscription: Subscription) -> None:
    """From now on nats-py has the messages of a subscription again."""
    DirectParser.of(client).takers.pop(str(subscription._id).encode(), None)


def headers_bytes(words: list[bytes]) -> int:
    """How long the headers of a message are, from the words of its first line."""
    return int(words[-2]) if words[0] == b"HMSG" else 0


def reply_of(words: list[bytes]) -> str:
    """Where the reply to a message goes; empty if nowhere."""
    return words[3].decode() if len(words) == (6 if words[0] == b"HMSG" else 5) else ""


class DirectParser(Parser):
    """nats-py's parser, and what takes messages before it: `takers`, by the number of the subscription."""

    takers: dict[bytes, Take]
    _enough: int
    """As long as it has fewer bytes, there is nothing to be done."""
    _times_reset: int

    @classmethod
    def of(cls, client: Client) -> DirectParser:
        """The parser of a client, which becomes one of these and goes on where it is."""
        parser: Parser = client._ps
        if not isinstance(parser, cls):
            parser.__class__ = cls
            vars(parser).update(takers={}, _enough=0, _times_reset=0)
        return cast(DirectParser, parser)

    def reset(self) -> None:
        """Another connection begins."""
        super().reset()
        self._enough = 0
        self._times_reset += 1

    async def parse(self, data: bytes = b"") -> None:
        """Deals with what was read next."""
        if self.state == AWAITING_MSG_PAYLOAD:
            missing = self.needed + len(END) - len(self.buf)
            await super().parse(data[:missing])
            data = data[missing:]
            if not data:
                return
        if self.buf:
            self.buf.extend(data)
            if len(self.buf) < self._enough:
                return
            data = bytes(self.buf)
            self.buf.clear()
        if data:
            before = self._times_reset
            others, unfinished, self._enough = self._take(data)
            await super().parse(others)
            if self._times_reset == before:
                self.buf.extend(unfinished)

    def _take(self, data: bytes) -> tuple[bytes, bytes, int]:
        """Has whole messages taken. What remains for nats-py, a message that is not whole and is to be taken,
        and how long that will be."""
        others: list[bytes] = []
        at = kept = 0
        while (line_end := data.find(END, at)) >= 0:
            words, begin = data[at:line_end].split(), line_end + len(END)
            take = self.takers.get(words[2]) if len(words) > 3 and words[0] in MESSAGES else None
            if take is None:
                at = begin if not words or words[0] not in MESSAGES else _end(words, begin)
                continue
            after = _end(words, begin)
            if after > len(data):
                return b"".join((*others, data[kept:at])), data[at:], after - at
            if take(words, data, begin, after - len(END)):
                others.append(data[kept:at])
                kept = after
            at = after
        return b"".join((*others, data[kept:])), b"", 0


def _end(words: list[bytes], begin: int) -> int:
    """Where a message ends whose headers begin there. One whose size is no number ends there: nats-py says
    so."""
    return begin + (int(words[-1]) + len(END) if words[-1].isdigit() else 0)
