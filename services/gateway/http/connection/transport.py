"""How bytes go to a client: a head together with its body, and a close that lets the client read why."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

LINGER_S = 5.0
"""How long what the peer still sends is read and dropped."""


class ClientTransport:
    """A connection's transport, with two ways of its own.

    The head of a reply goes with what comes next of it: one system call here, and one wake-up of the client,
    instead of two. ASGI wants the head to wait for that.

    `close` ends what is sent, and reads on for a while where `is_unread` says that the peer is in the midst
    of sending. A socket that is closed with unread bytes in it resets the connection, and a peer may then
    lose what it had not read of the reply (RFC 9112, section 9.6). What comes after it is the protocol's to
    drop: `is_closing` is true from then on, and what is written is dropped here.
    """

    def __init__(self, transport: asyncio.Transport, is_unread: Callable[[], bool]) -> None:
        self._transport = transport
        self._is_unread = is_unread
        self._write = transport.write
        self._head = b""
        self._head_comes = False
        self._end: asyncio.TimerHandle | None = None
        self.get_extra_info = transport.get_extra_info
        self.set_protocol = transport.set_protocol
        self.pause_reading = transport.pause_reading
        self.resume_reading = transport.resume_reading

    def hold(self) -> None:
        """What is written next is a head."""
        self._head_comes = True

    def write(self, data: bytes) -> None:
        """Sends data, after the head that was held; a head is held."""
        if self._end is not None:
            return
        if self._head_comes:
            self._head, self._head_comes = data, False
            return
        if self._head:
            data, self._head = self._head + data, b""
        self._write(data)

    def is_closing(self) -> bool:
        """Whether nothing is to be read or written any more."""
        return self._end is not None or self._transport.is_closing()

    def close(self) -> None:
        """Sends what was held, and closes the connection in order: at once, or once the peer has ended,
        `LINGER_S` later at the latest."""
        if self.is_closing():
            return
        if self._head:
            self.write(b"")
        if not (self._is_unread() and self._transport.can_write_eof()):
            self._transport.close()
            return
        self._transport.write_eof()
        self._transport.resume_reading()
        self._end = asyncio.get_running_loop().call_later(LINGER_S, self._transport.abort)

    def abort(self) -> None:
        """Closes the connection at once."""
        self._transport.abort()

    def lost(self) -> None:
        """The connection is gone."""
        if self._end is not None:
            self._end.cancel()
