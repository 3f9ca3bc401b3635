"""One HTTP exchange: who hangs up before the answer is complete wants it no more.

Its handler is cancelled, and so is what the mesh does for it. A request that is to go on by itself is
submitted and not followed: `Choir.submit_ask`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from contextvars import ContextVar

from starlette.types import Message, Send

from schemas.subjects import Priority

current_exchange: ContextVar[Exchange | None] = ContextVar("current_exchange", default=None)
work_priority: ContextVar[Priority] = ContextVar("work_priority", default="interactive")
"""The class of all work that is asked for here."""


class Reply:
    """The `send` of one exchange. `status` is 0 until there is one; each reply has the headers `added`."""

    def __init__(self, send: Send) -> None:
        self._send = send
        self.status = 0
        self.complete = False
        self.added: Sequence[tuple[bytes, bytes]] = ()

    async def __call__(self, message: Message) -> None:
        """Sends a part of the reply."""
        if message["type"] == "http.response.start":
            self.status = message["status"]
            if self.added:
                message = {**message, "headers": [*message.get("headers", ()), *self.added]}
        elif not message.get("more_body", False):
            self.complete = True
        await self._send(message)


class Exchange:
    """What the mesh does for one HTTP request: `in_work` has the ids of requests whose result is not there
    yet. `give_up` is told these when the client has gone. `made` has the ids that were made for this
    exchange, until the mesh is asked under them."""

    def __init__(self, reply: Reply, give_up: Callable[[str], None]) -> None:
        handler = asyncio.current_task()
        assert handler is not None
        self._handler = handler
        self._reply = reply
        self._give_up = give_up
        self.in_work: set[str] = set()
        self.made: set[str] = set()
        self.left = False

    def leave(self) -> None:
        """The client has gone: the handler is cancelled, unless it has answered."""
        if self._reply.complete:
            return
        self.left = True
        for request_id in tuple(self.in_work):
            self._give_up(request_id)
        self._handler.cancel()
