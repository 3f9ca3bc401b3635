"""HTTP/1.1 as uvicorn speaks it, with limits of size and time that it does not have itself."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from starlette.types import Scope
from uvicorn.config import Config
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.server import ServerState

from services.gateway.http.connection.addresses import Addresses
from services.gateway.http.connection.transport import ClientTransport
from services.gateway.settings import GatewaySection

TOO_LARGE = b"431 Request Header Fields Too Large"
TOO_SLOW = b"408 Request Timeout"
TOO_MANY = b"429 Too Many Requests"
FIELD_MARKS = 3
"""Bytes of a field of a head that belong to neither its name nor its value, at the least."""
MANY_OPEN = b"this address has too many connections open: close some, or raise max_connections_per_address"
REFUSAL = b"HTTP/1.1 %s\r\ncontent-type: application/json\r\ncontent-length: %d\r\nconnection: close\r\n\r\n"


CONNECTION = "connection"
"""Where a request's scope has its connection, in `state`."""


class Connection:
    """What requests know of the connection that they came on: whether it is gone.

    When it goes `on_gone` is called, which is for the request that came last, and `on_left`, for the one that
    is being answered. `whole` says that nothing is missing of any body that has begun, `ended` that what is
    missing will not come: its client has closed its half. `on_head` is to be called before the head of a
    reply is sent that has a body. `answer` sends a reply that is there as a whole, as its bytes, to the
    request of a scope, and `begin` the head of one that comes in pieces, which goes with the first of them;
    False where it has to go the usual way.
    """

    def __init__(self) -> None:
        self.gone = False
        self.whole = False
        self.ended = False
        self.on_gone: Callable[[], None] = _nothing
        self.on_left: Callable[[], None] = _nothing
        self.on_head: Callable[[], None] = _nothing
        self.answer: Callable[[Scope, bytes], bool] = _not_here
        self.begin: Callable[[Scope, bytes], bool] = _not_here

    def go(self) -> None:
        """It is lost, or closed in order."""
        self.gone = True
        self.on_gone()
        self.on_left()


def connection_of(scope: Scope) -> Connection | None:
    """The connection that a request came on; None under another server."""
    connection: Connection | None = scope.get("state", {}).get(CONNECTION)
    return connection


def _nothing() -> None:
    """Nobody wants to know."""


def _not_here(_scope: Scope, _reply: bytes) -> bool:
    """Nobody can."""
    return False


class LimitedProtocol(HttpToolsProtocol):
    """One connection. It ends with a head that is too large or slow, with fields behind a body that are, with
    the rest of a body that does not come after its reply, and with a reader who takes nothing; it does not
    begin where its address has too many open."""

    def __init__(
        self, limits: GatewaySection, addresses: Addresses, config: Config, state: ServerState
    ) -> None:
        self._connection = Connection()
        self._addresses = addresses
        self._whose = ""
        self._is_refused = False
        super().__init__(config, state, {CONNECTION: self._connection})
        self._connection.answer = self._answer
        self._connection.begin = self._begin
        self._limits = limits
        self._in_head = True
        self._within_body = False  # of what came last, a part belongs to a body
        self._head_bytes = 0
        self._framing_bytes = 0  # since the last byte of a body: what its chunks say, and fields behind it
        self._deadline: asyncio.TimerHandle | None = None
        self._write_deadline: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """The first head is awaited from now on."""
        self._client = ClientTransport(
            transport,
            lambda: (
                (self._is_refused or not self._in_head or self._head_bytes > 0) and not self._connection.ended
            ),
        )
        self._connection.on_head = self._client.hold
        super().connection_made(self._client)  # type: ignore[arg-type]  # all that is used of one
        verdict, self._whose = self._addresses.enter(self.client[0] if self.client else "")
        if verdict == "taken":
            self._await_head()
            return
        # Its client may not have written a word yet: what it writes now is read and dropped, so that it reads
        # this. It is none of the connections that requests come on.
        self._is_refused = True
        self.connections.discard(self)
        if verdict == "told":
            self._refuse(TOO_MANY, MANY_OPEN)
        else:
            self.transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        """Nothing is awaited any more."""
        self._addresses.leave(self._whose)
        self._connection.go()
        self._client.lost()
        _stop(self._deadline)
        self._deadline = None
        _stop(self._write_deadline)
        self._write_deadline = None
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Parses what has come, unless the head has grown too large."""
        if self.transport.is_closing():
            return
        self._within_body = not self._in_head
        self._framing_bytes += len(data)
        super().data_received(data)
        if self._in_head and not self._within_body:
            if self._deadline is None:
                self._await_head()
            self._head_bytes += len(data)
            if self._head_bytes > self._limits.max_head_bytes:
                self._refuse(TOO_LARGE)
        elif not self._in_head:
            if self._framing_bytes > self._limits.max_head_bytes:
                self._refuse(TOO_LARGE)
            elif self._deadline is None:
                self._await_body()

    def eof_received(self) -> bool:  # type: ignore[override]
        """The client has closed its half: whether the connection stays open, for a reply.

        It does within a body that a handler may be reading, which says then what is wrong. Anywhere else such
        a client cannot be told from one that has gone. TLS has no half of a connection.
        """
        cycle = self.cycle
        if self.transport.is_closing() or self._in_head or cycle is None or cycle.response_started:
            return False
        if self.pipeline or self.transport.get_extra_info("sslcontext") is not None:
            return False
        self._connection.ended = True
        cycle.keep_alive = False
        cycle.message_event.set()
        return True

    def on_header(self, name: bytes, value: bytes) -> None:
        """Takes a field of a head. One behind a body says nothing: what a request may do has been decided."""
        if self._in_head:
            super().on_header(name, value)

    def on_headers_complete(self) -> None:
        """Hands the request to the application, unless its head is too large."""
        self._in_head, self._within_body, self._head_bytes, self._framing_bytes = False, True, 0, 0
        self._connection.whole = False
        _stop(self._deadline)
        self._deadline = None
        size = len(self.url) + sum(len(name) + len(value) + FIELD_MARKS for name, value in self.headers)
        if size > self._limits.max_head_bytes:
            self._refuse(TOO_LARGE)
            return
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        """Takes a part of the body of a request that was not refused."""
        self._framing_bytes = 0
        if not self.transport.is_closing() and self.cycle is not None:
            super().on_body(body)

    def on_message_complete(self) -> None:
        """What comes next is another head."""
        self._in_head = True
        self._connection.whole = True
        _stop(self._deadline)
        self._deadline = None
        if not self.transport.is_closing() and self.cycle is not None:
            super().on_message_complete()

    def pause_writing(self) -> None:
        """The reader is slow: it is given some time."""
        super().pause_writing()
        if self._write_deadline is None:
            after_s = self._limits.write_timeout_s
            self._write_deadline = self.loop.call_later(after_s, self.transport.abort)

    def resume_writing(self) -> None:
        """The reader goes on."""
        _stop(self._write_deadline)
        self._write_deadline = None
        super().resume_writing()

    def _answer(self, scope: Scope, reply: bytes) -> bool:
        """Sends all of a reply at once."""
        if not self._is_plain(scope):
            return False
        cycle = self.cycle
        cycle.response_started = cycle.response_complete = True
        cycle.waiting_for_100_continue = False
        cycle.message_event.set()
        self.transport.write(reply)
        cycle.on_response()
        return True

    def _begin(self, scope: Scope, head: bytes) -> bool:
        """Begins a reply whose head says that chunks come."""
        if not self._is_plain(scope) or scope["method"] == "HEAD":
            return False
        cycle = self.cycle
        cycle.response_started = cycle.chunked_encoding = True
        cycle.waiting_for_100_continue = False
        self._client.hold()
        self.transport.write(head)
        return True

    def _is_plain(self, scope: Scope) -> bool:
        """Whether a reply may be written past uvicorn. Not to one of several requests that came together, to
        a slow reader, nor where the connection ends with it: uvicorn knows what is to be done then."""
        cycle = self.cycle
        if cycle.scope is not scope or cycle.response_started or not cycle.keep_alive:
            return False
        return not (cycle.disconnected or self.flow.write_paused)

    def _await_head(self) -> None:
        self._deadline = self.loop.call_later(self._limits.head_timeout_s, self._refuse, TOO_SLOW)

    def _await_body(self) -> None:
        self._deadline = self.loop.call_later(self._limits.body_timeout_s, self._leave_body)

    def _leave_body(self) -> None:
        """Closes the connection if its request was answered: until then whoever reads the body waits for the
        rest, and says what is to be said."""
        if self.cycle is None or self.cycle.response_complete or self._connection.ended:
            self._deadline = None
            self.transport.close()
        else:
            self._await_body()

    def _refuse(self, status: bytes, words: bytes | None = None) -> None:
        """Says why, in no dialect, for the path may not be known, and closes the connection."""
        _stop(self._deadline)
        self._deadline = None
        if self.transport.is_closing():
            return
        body = b'{"error":"%s"}' % (words or status[4:].lower())
        self.transport.write(REFUSAL % (status, len(body)) + body)
        self.transport.close()


def _stop(timer: asyncio.TimerHandle | None) -> None:
    if timer is not None:
        timer.cancel()


def protocol_factory(
    limits: GatewaySection, config: Config, state: ServerState
) -> Callable[[], asyncio.Protocol]:
    """Makes the protocol of each new connection."""
    addresses = Addresses(limits.max_connections_per_address, limits.trusted_proxies)

    def create(*_: Any) -> asyncio.Protocol:
        return LimitedProtocol(limits, addresses, config, state)

    return create
