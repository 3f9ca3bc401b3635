"""One HTTP exchange: who hangs up before the answer is complete wants it no more.

Its handler is cancelled, and so is what the mesh does for it. A request that is to go on by itself is
submitted and not followed: `Choir.submit_ask`.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable
from contextvars import ContextVar

from starlette.types import Message, Scope, Send

ID_HEADER = b"choir-request-id"
CACHE_HEADER = b"choir-cache"
CACHED_FROM_HEADER = b"choir-cached-from"
OWN_HEADERS = frozenset((CACHE_HEADER, CACHED_FROM_HEADER))
"""What the gateway itself adds to a reply: nothing in it was said by a client."""
CACHE_USES = ("off", "miss", "shared", "hit")

current_exchange: ContextVar[Exchange | None] = ContextVar("current_exchange", default=None)


def header_of(scope: Scope, name: str) -> str | None:
    """A header of a request, by its name in lower case: of several of the name the first."""
    wanted = name.encode("latin-1")
    for header, value in scope["headers"]:
        if header == wanted:
            return str(value, "latin-1")
    return None


class Reply:
    """The `send` of one exchange. `status` is 0 until there is one; `added` are headers that the reply gets
    besides its own, `bytes` what has been sent of its body. `on_head` is told before the head is sent, unless
    nothing comes after it."""

    def __init__(self, send: Send, on_head: Callable[[], None] | None = None) -> None:
        self._send = send
        self._on_head = on_head
        self.status = 0
        self.complete = False
        self.bytes = 0
        self.added: dict[bytes, bytes] = {}
        self._headers: Iterable[tuple[bytes, bytes]] = ()
        self._head = b""

    @property
    def request_id(self) -> str | None:
        """The id that the mesh knows the request by, as the reply says it."""
        found = next((value for name, value in self._headers if name == ID_HEADER), b"")
        if not found and ID_HEADER in self._head:
            found = self._head.partition(ID_HEADER + b": ")[2].partition(b"\r\n")[0]
        return found.decode("latin-1") or None

    async def __call__(self, message: Message) -> None:
        """Sends a part of the reply."""
        if message["type"] == "http.response.start":
            self.status, self._headers = message["status"], message.get("headers", ())
            if self._on_head is not None:
                self._on_head()
            if self.added:
                message = {**message, "headers": [*message.get("headers", ()), *self.added.items()]}
        else:
            self.bytes += len(message.get("body", b""))
            self.complete = not message.get("more_body", False)
        await self._send(message)

    def at_once(self, answer: Callable[[bytes], bool], head: bytes, body: bytes) -> bool:
        """Sends a reply of status 200, whose `head` lacks what is added and the empty line, by `answer`;
        False if that did not, and the usual way is to be gone."""
        self.complete = self.begin_at_once(lambda whole: answer(whole + body), head)
        self.bytes = len(body) if self.complete else 0
        return self.complete

    def begin_at_once(self, begin: Callable[[bytes], bool], head: bytes) -> bool:
        """Sends such a head by `begin`, of a reply that comes in pieces; False as `at_once`."""
        if not self.added.keys() <= OWN_HEADERS:
            return False
        added = b"".join([b"%s: %s\r\n" % header for header in self.added.items()])
        if not begin(b"%s%s\r\n" % (head, added)):
            return False
        self.status, self._head = 200, head
        return True


def _nobody_counts(_name: str) -> None:
    """Nobody wants to know."""


class Exchange:
    """What the mesh does for one HTTP request: `in_work` has the ids of requests whose result is not there
    yet. `give_up` is told these when the client has gone. `made` has the ids that were made for this
    exchange, until the mesh is asked under them. `said` is the id of a request that may have been sent
    before, and a hash of what it says. `known` is of a request that was answered from memory: whose result it
    got, and until when that is kept. `began_ns` is when it came, by `perf_counter_ns`. `pass_over` is told
    the name of each field of its body that nobody here knows."""

    def __init__(
        self,
        scope: Scope,
        reply: Reply,
        give_up: Callable[[str], None],
        pass_over: Callable[[str], None] = _nobody_counts,
    ) -> None:
        handler = asyncio.current_task()
        assert handler is not None
        self._handler = handler
        self.began_ns = time.perf_counter_ns()
        self._scope = scope
        self._reply = reply
        self._give_up = give_up
        self.pass_over = pass_over
        self.in_work: set[str] = set()
        self.made: set[str] = set()
        self.said: tuple[str, str] | None = None
        self.known: tuple[str, float] | None = None
        self.left = False

    def leave(self) -> None:
        """The client has gone: the handler is cancelled, unless it has answered."""
        if self._reply.complete:
            return
        self.left = True
        for request_id in tuple(self.in_work):
            self._give_up(request_id)
        self._handler.cancel()

    def has_made(self, request_id: str | None) -> bool:
        """Whether an id was made for this exchange: nobody can have asked under it."""
        return request_id in self.made

    @property
    def wants_cached(self) -> bool:
        """Whether the client takes what is there already: it says so unless it says otherwise."""
        for name, value in self._scope["headers"]:
            if name == CACHE_HEADER and value.strip().lower() == b"off":
                return False
            if name == b"cache-control" and (b"no-cache" in value or b"no-store" in value):
                return False
        return True

    def note_cache_use(self, use: str, source: str | None = None) -> None:
        """Says in the reply's headers where its answer comes from. Of several answers that which is least
        from the cache."""
        told = self._reply.added.get(CACHE_HEADER)
        if told is not None and CACHE_USES.index(told.decode()) < CACHE_USES.index(use):
            return
        self._reply.added[CACHE_HEADER] = use.encode()
        if source is None:
            self._reply.added.pop(CACHED_FROM_HEADER, None)
        else:
            self._reply.added[CACHED_FROM_HEADER] = source.encode()
