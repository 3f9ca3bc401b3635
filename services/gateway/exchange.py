"""One HTTP exchange: who hangs up before the answer is complete wants it no more.

Its handler is cancelled, and so is what the mesh does for it. A request that is to go on by itself is
submitted and not followed: `Choir.submit_ask`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextvars import ContextVar

from starlette.types import ASGIApp, Message, Receive, Scope, Send

WITHOUT_BODY = frozenset(("GET", "HEAD", "OPTIONS"))

current_exchange: ContextVar[Exchange | None] = ContextVar("current_exchange", default=None)


class Exchange:
    """What the mesh does for one HTTP request: the ids of requests whose result is not there yet."""

    def __init__(self) -> None:
        self.in_work: set[str] = set()


class HangUpMiddleware:
    """Cancels the handler of a client that has gone, and tells `give_up` the ids of its requests."""

    def __init__(self, app: ASGIApp, give_up: Callable[[str], None]) -> None:
        self._app = app
        self._give_up = give_up

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serves one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        await _Watched(scope, receive, send, self._give_up).serve(self._app)


class _Watched:
    """One exchange whose client is watched."""

    def __init__(self, scope: Scope, receive: Receive, send: Send, give_up: Callable[[str], None]) -> None:
        self._scope = scope
        self._receive = receive
        self._send = send
        self._give_up = give_up
        self._exchange = Exchange()
        self._watch: asyncio.Task[None] | None = None
        self._answered = False
        self._gone = False

    async def serve(self, app: ASGIApp) -> None:
        handler = asyncio.current_task()
        assert handler is not None
        self._handler = handler
        current_exchange.set(self._exchange)
        if self._scope["method"] in WITHOUT_BODY:
            self._start_watch()
        try:
            await app(self._scope, self._take, self._give)
        except asyncio.CancelledError:
            if not self._gone:
                raise
            handler.uncancel()
        finally:
            if self._watch is not None:
                self._watch.cancel()

    async def _take(self) -> Message:
        """The next part of the body; after the last one nobody but the watch listens."""
        if self._watch is not None:
            return {"type": "http.request", "body": b"", "more_body": False}
        message = await self._receive()
        if message["type"] == "http.request" and not message.get("more_body", False):
            self._start_watch()
        return message

    async def _give(self, message: Message) -> None:
        if message["type"] == "http.response.body" and not message.get("more_body", False):
            self._answered = True
        await self._send(message)

    def _start_watch(self) -> None:
        self._watch = asyncio.create_task(self._until_gone(), name="client watch")

    async def _until_gone(self) -> None:
        while (await self._receive())["type"] != "http.disconnect":
            pass
        if self._answered:
            return
        self._gone = True
        for request_id in tuple(self._exchange.in_work):
            self._give_up(request_id)
        self._handler.cancel()
