"""The head of a reply and what comes next of it are sent together."""

from __future__ import annotations

from services.gateway.http.connection.lingering import LingeringTransport


class HeadHolder:
    """A connection's transport, which sends the head of a reply together with what comes next of it: one
    system call here, and one wake-up of the client, instead of two. ASGI wants the head to wait for that.
    """

    def __init__(self, transport: LingeringTransport) -> None:
        self._transport = transport
        self._write = transport.write
        self._head = b""
        self._head_comes = False
        self.is_closing = transport.is_closing
        self.get_extra_info = transport.get_extra_info
        self.set_protocol = transport.set_protocol
        self.pause_reading = transport.pause_reading
        self.resume_reading = transport.resume_reading

    def hold(self) -> None:
        """What is written next is a head."""
        self._head_comes = True

    def write(self, data: bytes) -> None:
        """Sends data, after the head that was held; a head is held."""
        if self._head_comes:
            self._head, self._head_comes = data, False
            return
        if self._head:
            data, self._head = self._head + data, b""
        self._write(data)

    def close(self) -> None:
        """Sends what was held, and closes the connection in order."""
        if self._head:
            self.write(b"")
        self._transport.close()

    def abort(self) -> None:
        """Closes the connection at once."""
        self._transport.abort()
