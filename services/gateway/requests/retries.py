"""Retries of clients that send no idempotency key: recognised, so that nothing is done twice.

OpenAI's official clients try again by themselves, and say only how often they have
(`x-stainless-retry-count`). A request with the path, key and body of another one, that says one more, is that
one again: it gets its id, and so its result. So is one that says several more, if the connection of that one
is gone: the tries between may have come to nothing on the way. Two equal requests that both come for the
first time are two.

What came for the first time is also noted in the bucket `choir_retries`, without waiting for the broker: so a
retry is recognised by any gateway, also after the one that had the request was killed.

There, too, is noted what the first request under an idempotency key says. A gateway of another version may
make another request of the mesh out of the same words (a seed, a default, the members of a set): where the
router finds that the id stands for another request, the words decide whether the client gets the result of
that one. The hash of the words, the ids and the keys of the bucket are the same in all versions.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import nats.errors
from nats.aio.client import Client
from starlette.requests import Request

from schemas import subjects
from schemas.errors import ChoirError, NotReady, UnknownRequest
from services.chassis.logs import get_logger
from services.chassis.nats.bucket import BYTES, Bucket, WrongRevision
from services.client.client import Choir
from services.gateway.access.caller import current_caller
from services.gateway.http.connection.protocol import connection_of
from services.gateway.http.exchange import current_exchange, header_of
from services.gateway.requests.identity import KEY_HEADER, made_id, request_id_of

COUNT_HEADER = "x-stainless-retry-count"
KEPT_S = 900.0
"""How long a request may be retried: the patience of these clients is 600 s."""
MOST_KEPT = 20_000
HASH_LENGTH = 32

log = get_logger("gateway.retries")


@dataclass
class _Sent:
    """A request as it came last: how many times before, when it came first, and whether its connection is
    gone. One that another gateway has noted has the `revision` of that."""

    request_id: str
    said: str
    count: int
    at_s: float
    gone: bool = False
    revision: int | None = None
    back: asyncio.Event = field(default_factory=asyncio.Event)


class Retries:
    """The requests of one gateway's clients that may be sent again: the last one of each connection.

    For `grace_s` the work goes on of a client that has gone.
    """

    def __init__(self, mesh: Callable[[], Choir], client: Client, grace_s: float) -> None:
        self._grace_s = grace_s
        self._mesh = mesh
        self._client = client
        self._noted = Bucket(client, subjects.RETRIES_BUCKET, BYTES)
        self._sent: dict[str, _Sent] = {}
        self._alike: dict[str, list[_Sent]] = {}
        self._notes: set[asyncio.Task[None]] = set()

    async def id_of(self, request: Request, body: dict[str, Any]) -> str:
        """The id of a request: of its key, of the request that it repeats, or a new one."""
        count = header_of(request.scope, COUNT_HEADER) or ""
        if header_of(request.scope, KEY_HEADER) is not None:
            request_id, said = request_id_of(request), _hash(request, body)
            await self._note_first(request_id, said)
        elif count.isascii() and count.isdigit():
            said = _hash(request, body)
            sent = await self._earlier(said, int(count))
            self._watch(request, sent)
            request_id = sent.request_id
        else:
            return request_id_of(request)
        if (exchange := current_exchange.get()) is not None:
            exchange.said = request_id, said
        return request_id

    async def _note_first(self, request_id: str, said: str) -> None:
        """Notes what a request with an idempotency key says, unless one has come under its id before. Does
        not wait for the broker."""
        key = subjects.keyed_retry_key(request_id)
        subject = subjects.bucket_key(subjects.RETRIES_BUCKET, key)
        headers = {subjects.EXPECTED_SEQUENCE_HEADER: "0"}
        await self._client.publish(subject, said.encode(), headers=headers)

    async def repeats(self) -> bool:
        """Whether the request that is being answered says what the first one under its id did."""
        exchange = current_exchange.get()
        if exchange is None or exchange.said is None:
            return False
        request_id, said = exchange.said
        noted = (await self._noted.get(subjects.keyed_retry_key(request_id))).value
        if noted is not None:
            return noted == said.encode()
        return (await self._noted.get(subjects.retry_key(said, request_id))).value is not None

    async def _earlier(self, said: str, count: int) -> _Sent:
        """The request that this one repeats, or this one as a new one."""
        if count:
            for find in (self._lost_here, self._lost_elsewhere, self._answered_here):
                for sent in await find(said, count):
                    if await self._join(sent, count):
                        return sent
        sent = _Sent(made_id(), said, count, time.monotonic())
        self._remember(sent)
        await self._publish(sent)
        return sent

    def _watch(self, request: Request, sent: _Sent) -> None:
        """Whoever sends another request on a connection has had the answer to the one before."""
        connection = connection_of(request.scope)
        if connection is None or connection.gone:
            return
        connection.on_gone = partial(self._lose, sent)

    def _lose(self, sent: _Sent) -> None:
        """The connection of a request has gone: it may come again."""
        sent.gone = True
        note = asyncio.create_task(self._publish_loss(sent), name=f"note {sent.request_id}")
        self._notes.add(note)
        note.add_done_callback(self._notes.discard)

    async def comes_back(self, request_id: str) -> bool:
        """Whether the client of a request has gone to send it again; if it has not, it is too late then."""
        sent = self._sent.get(request_id) or self._sent.get(request_id.rpartition("-")[0])
        if sent is None:
            return False
        sent.gone, count = True, sent.count
        sent.back.clear()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self._grace_s):
                await sent.back.wait()
                return True
        key = subjects.retry_key(sent.said, sent.request_id)
        while True:
            noted = await self._noted.get(key)
            if sent.back.is_set() or (noted.value is not None and _read(noted.value)[0] > count):
                return True  # it has come meanwhile, here or to another gateway
            self._forget(sent)
            with contextlib.suppress(WrongRevision):
                await self._noted.delete(key, noted.revision)
                return False

    async def _lost_here(self, said: str, count: int) -> list[_Sent]:
        """Requests whose connection has gone: first what came last, the newest first."""
        lost = [sent for sent in reversed(self._alike.get(said, ())) if sent.gone and sent.count < count]
        return sorted(lost, key=lambda sent: sent.count, reverse=True)

    async def _answered_here(self, said: str, count: int) -> list[_Sent]:
        """Requests whose connection is there: something between the client and it may have gone."""
        alike = reversed(self._alike.get(said, ()))
        return [sent for sent in alike if not sent.gone and sent.count == count - 1]

    async def _lost_elsewhere(self, said: str, count: int) -> list[_Sent]:
        """What other gateways have noted, also of what came here before: first what they say is lost, the
        newest first."""
        found: list[tuple[bool, int, str, _Sent]] = []
        for key in await self._noted.keys(subjects.retry_keys(said)):
            request_id = subjects.request_of_retry(key)
            entry = await self._noted.get(key)
            if entry.value is None:
                continue
            noted, gone = _read(entry.value)
            own = self._sent.get(request_id)
            if not _may_be(noted, count, gone) or (own is not None and own.count >= noted):
                continue
            sent = own or _Sent(request_id, said, noted, time.monotonic())
            sent.count, sent.gone, sent.revision = noted, gone, entry.revision
            found.append((gone, noted, request_id, sent))
        return [sent for *_, sent in sorted(found, key=lambda one: one[:3], reverse=True)]

    async def _join(self, sent: _Sent, count: int) -> bool:
        """Whether a request is sent again with this; another retry may have been faster."""
        if not _may_be(sent.count, count, sent.gone) or self._sent.get(sent.request_id, sent) is not sent:
            return False
        sent.count, sent.gone = count, False
        sent.back.set()
        self._remember(sent)
        if not await self._note(sent):
            return False
        return await self._is_worth_it(sent.request_id)

    async def _note(self, sent: _Sent) -> bool:
        """Tells the other gateways of a retry; False if one of them has had it first. That one of them notes
        just now that the connection is gone takes it from nobody."""
        key = subjects.retry_key(sent.said, sent.request_id)
        if sent.revision is None:
            await self._noted.put(key, _written(sent))
            return True
        while sent.revision is not None:
            try:
                await self._noted.update(key, _written(sent), sent.revision)
                sent.revision = None
            except WrongRevision:
                entry = await self._noted.get(key)
                if entry.value is None or _read(entry.value)[0] >= sent.count:
                    return False
                sent.revision = entry.revision
        return True

    async def _publish(self, sent: _Sent) -> None:
        """Notes a request for other gateways, and does not wait for the broker."""
        subject = subjects.bucket_key(subjects.RETRIES_BUCKET, subjects.retry_key(sent.said, sent.request_id))
        await self._client.publish(subject, _written(sent))

    async def _publish_loss(self, sent: _Sent) -> None:
        """The same on nobody's behalf: a gateway that stops may have lost its connection to the broker."""
        try:
            await self._publish(sent)
        except nats.errors.Error as error:
            log.info("a lost request was not noted", request_id=sent.request_id, why=str(error))

    async def _is_worth_it(self, request_id: str) -> bool:
        """Not if a request came to nothing: whoever tries that again wants it tried again."""
        try:
            await self._mesh().fetch(request_id)
        except (NotReady, UnknownRequest):
            return True
        except ChoirError:
            return False
        return True

    def _remember(self, sent: _Sent) -> None:
        if sent.request_id in self._sent:
            return
        self._sent[sent.request_id] = sent
        self._alike.setdefault(sent.said, []).append(sent)
        oldest_s = time.monotonic() - KEPT_S
        while (first := next(iter(self._sent.values()))).at_s < oldest_s or len(self._sent) > MOST_KEPT:
            self._forget(first)

    def _forget(self, sent: _Sent) -> None:
        if self._sent.get(sent.request_id) is sent:
            del self._sent[sent.request_id]
        alike = self._alike.get(sent.said, [])
        if sent in alike:
            alike.remove(sent)
        if not alike:
            self._alike.pop(sent.said, None)


def _may_be(earlier: int, count: int, gone: bool) -> bool:
    """Whether a retry may repeat a request that came `earlier` times before: one whose connection is there
    has no try missing between."""
    return earlier < count if gone else earlier == count - 1


def _written(sent: _Sent) -> bytes:
    """How often a request came, and a minus if its connection has gone since."""
    return b"%d%s" % (sent.count, b"-" if sent.gone else b"")


def _read(noted: bytes) -> tuple[int, bool]:
    """The same, read."""
    return int(noted.rstrip(b"-")), noted.endswith(b"-")


def _hash(request: Request, body: dict[str, Any]) -> str:
    """What is the same of a request and its retry."""
    key = current_caller.get().key
    authorization = header_of(request.scope, "authorization")
    return said_in(request.scope["path"], authorization, None if key is None else key.id, body)


def said_in(path: str, authorization: str | None, key_id: str | None, body: dict[str, Any]) -> str:
    """A hash of what a request says, whatever the order of its fields."""
    said = [path, authorization, key_id, body]
    return hashlib.sha256(json.dumps(said, sort_keys=True).encode()).hexdigest()[:HASH_LENGTH]
