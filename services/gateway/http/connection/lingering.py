"""A connection that is closed before all was read: the peer can still read why."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

LINGER_S = 5.0
"""How long what the peer still sends is read and dropped."""


class LingeringTransport:
    """A connection's transport whose `close` ends what is sent, and reads on for a while where `is_unread`
    says that the peer is in the midst of sending. A socket that is closed with unread bytes in it resets the
    connection, and a peer may then lose what it had not read of the reply (RFC 9112, section 9.6).

    What comes after `close` is the protocol's to drop: `is_closing` is true from then on.
    """

    def __init__(self, transport: asyncio.Transport, is_unread: Callable[[], bool]) -> None:
        self._transport = transport
        self._is_unread = is_unread
        self._end: asyncio.TimerHandle | None = None
        self.write = transport.write
        self.get_extra_info = transport.get_extra_info
        self.set_protocol = transport.set_protocol
        self.pause_reading = transport.pause_reading
        self.resume_reading = transport.resume_reading

    def is_closing(self) -> bool:
        """Whether nothing is to be read or written any more."""
        return self._end is not None or self._transport.is_closing()

    def close(self) -> None:
        """Closes the connection in order, once the peer has ended or `LINGER_S` later."""
        if self.is_closing():
            return
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
