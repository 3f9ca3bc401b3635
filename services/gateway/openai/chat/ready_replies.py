"""Replies that are ready: a request that is the same, byte for byte, as one that was answered from this
gateway's memory gets the same reply, under an id of its own.

It is neither parsed nor checked again, and its reply is not written again: that takes longer than all else.
"""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass
from functools import partial

from starlette.requests import Request
from starlette.types import Receive, Scope, Send

from schemas.commands import Ask
from services.chassis.identity import new_id
from services.gateway.access.caller import current_caller
from services.gateway.http.connection.protocol import connection_of
from services.gateway.http.context import GatewayContext
from services.gateway.http.exchange import Reply, current_exchange
from services.gateway.openai.streams.place import HEADER as PLACE_HEADER
from services.gateway.requests.identity import ID_HEADER, KEY_HEADER
from services.gateway.requests.retries import COUNT_HEADER

JSON = "application/json"
HEAD = b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\ncontent-type: application/json\r\nchoir-request-id: %s\r\n"
OWN_BYTES = 500
"""What a ready reply takes beside what was asked and what was said."""
REPEATING = frozenset((KEY_HEADER.encode(), PLACE_HEADER.encode()))
"""Headers of requests that may be others again: their ids are not new."""
COUNT, FIRST = COUNT_HEADER.encode(), b"0"


@dataclass(frozen=True, slots=True)
class _Ready:
    """A reply's body, `cut` where the id of its request stands; the model and weights that it is of, and the
    request whose result it tells."""

    model: str
    identity: str | None
    source: str
    cut: tuple[bytes, ...]


class ReadyReply:
    """An ASGI response of JSON, for one request: all that it says is there."""

    def __init__(self, request_id: bytes, body: bytes) -> None:
        self._request_id = request_id
        self._body = body

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Sends the reply: as its bytes, where nothing speaks against that."""
        connection = connection_of(scope)
        if connection is not None and isinstance(send, Reply):
            head = HEAD % (len(self._body), self._request_id)
            if send.at_once(partial(connection.answer, scope), head, self._body):
                return
        headers = [
            (b"content-length", b"%d" % len(self._body)),
            (b"content-type", JSON.encode()),
            (ID_HEADER.encode(), self._request_id),
        ]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": self._body})


class ReadyReplies:
    """Replies to requests of single models that do not stream."""

    def __init__(self, context: GatewayContext) -> None:
        self._context = context

    async def reply(self, request: Request, body: bytes) -> ReadyReply | None:
        """The reply to a request, if it is ready. Raises UnknownModel as for any other request."""
        found = self._context.kept.get(_key(request, body))
        exchange = current_exchange.get()
        if (
            found is None
            or exchange is None
            or not self._context.takes_cached(exchange)
            or not _is_new(request)
        ):
            return None
        ready: _Ready = found[0]
        if self._context.models.at_hand(ready.model) is None:
            await self._context.models.find(ready.model)
        if self._context.models.identity(ready.model) != ready.identity:
            return None
        request_id = new_id()
        self._context.record_shared(request_id, ready.model, ready.source)
        written = request_id.encode()
        return ReadyReply(written, written.join(ready.cut))

    def keep(self, request: Request, body: bytes, ask: Ask, reply: bytes) -> None:
        """Keeps the reply to a request, if it was answered from memory, for as long as the result is kept."""
        exchange = current_exchange.get()
        if exchange is None or exchange.known is None or ask.model is None or ask.request_id is None:
            return
        source, until_s = exchange.known
        cut = tuple(reply.split(ask.request_id.encode()))
        ready = _Ready(ask.model, self._context.models.identity(ask.model), source, cut)
        self._context.kept.put(_key(request, body), ready, len(body) + len(reply) + OWN_BYTES, until_s)


def _key(request: Request, body: bytes) -> Hashable:
    """Whose request it is, and what it says."""
    caller = current_caller.get()
    key_id = None if caller.key is None else caller.key.id
    return caller.tenant, key_id, request.scope["path"], body


def _is_new(request: Request) -> bool:
    for name, value in request.scope["headers"]:
        if name in REPEATING or (name == COUNT and value != FIRST):
            return False
    return True
