"""Ends a connection to the broker in bounded time, whatever the other side does.

nats-py (2.16) waits for the end of a connection without a deadline, when it is closed and before it is made
anew. Two ends never came: that of a connection that was closed in the midst of its TLS handshake (asyncio
tells of the end only whom the handshake was made for), and that of one to a broker that stands still while
more waits to be sent than the system takes: such a service did not connect again. And who waited after
another one whose waiting was cancelled was cancelled as well.
"""

from __future__ import annotations

import asyncio
import ssl
from urllib.parse import ParseResult

import nats.aio.client
from nats.aio.transport import TcpTransport

END_PATIENCE_S = 2.0
"""For what is still to be sent, and for the word of TLS that nothing more comes."""


class EndingTransport(TcpTransport):
    """The transport of nats-py, whose end comes within END_PATIENCE_S."""

    _over = False
    _end: asyncio.Task[None] | None = None

    async def connect(self, uri: ParseResult, buffer_size: int, connect_timeout: int) -> None:
        """Connects to a server. OSError or TimeoutError if it cannot be reached."""
        self._over, self._end = False, None
        await super().connect(uri, buffer_size, connect_timeout)

    async def connect_tls(
        self, uri: str | ParseResult, ssl_context: ssl.SSLContext, buffer_size: int, connect_timeout: int
    ) -> None:
        """From now on speaks TLS; the connection is over if that fails. OSError or TimeoutError then."""
        try:
            await super().connect_tls(uri, ssl_context, buffer_size, connect_timeout)
        except BaseException:
            self._abort()
            raise

    async def wait_closed(self) -> None:
        """Returns when the connection has ended; what could not be sent by then is dropped."""
        if self._over:
            return
        if self._end is None:
            self._end = asyncio.create_task(super().wait_closed(), name="end")  # type: ignore[no-untyped-call]
            self._end.add_done_callback(_look)
        await asyncio.wait({self._end}, timeout=END_PATIENCE_S)
        if self._end.done():
            self._end.result()
        else:
            self._abort()

    def _abort(self) -> None:
        self._over = True
        for writer in (self._io_writer, self._bare_io_writer):
            if writer is not None:
                writer.transport.abort()


def _look(end: asyncio.Task[None]) -> None:
    """An error of a connection that nobody waits for any more is no news."""
    if not end.cancelled():
        end.exception()


def end_in_time() -> None:
    """Connections that this process makes from now on end within END_PATIENCE_S."""
    setattr(nats.aio.client, "TcpTransport", EndingTransport)  # noqa: B010  # what its clients connect by
