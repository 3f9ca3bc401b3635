"""Equal requests share one result: that of the first one, in work or stored, for as long as the cache keeps
it.

The bucket `choir_cache` has for what a tenant's request says the id of the request that is answered, its
leader. Whoever finds none puts its own id there, by compare-and-set, and is the leader; whoever finds one
waits for that one's result. A leader that fails, is cancelled, or was lost before it was stored is replaced
in the same way by one of those who wait.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass

from pydantic import ValidationError

from schemas import subjects
from schemas.commands import Ask
from schemas.errors import BrokerUnavailable, Cancelled, DeadlineExceeded, Overloaded, PayloadTooLarge
from schemas.events import RequestShared
from schemas.replies import CacheUse, Result
from schemas.requests.cache import CacheEntry
from services.chassis.context import ServiceContext
from services.chassis.logs import get_logger
from services.chassis.nats.bucket import Bucket, Entry, WrongRevision, messages
from services.chassis.nats.endpoints import Caller
from services.chassis.registry.directory import Serving, identity_of
from services.router.pending_results import PendingResults
from services.router.queued import queued_message
from services.router.token_relay import TokenRelay

LOOK_S = 2.0
"""So often a follower looks whether its leader is still in the queue. A leader is stored long before that."""
KEEP_PATIENCE_S = 2.0
HASH_LENGTH = 40
UNUSABLE = (BrokerUnavailable, Overloaded, ValidationError)
"""With these of the bucket a request is answered as if there were no cache."""

Own = Callable[[int], Awaitable[Result]]
"""Answers the request itself, after so many others that came to nothing."""

log = get_logger("router.cache")


@dataclass
class _Follower:
    """A request that waits for another one's result; its client may have `left`."""

    leader: str
    left: bool = False


class EqualRequests:
    """The requests of this router that take the result of an equal one.

    `serving` says what is served now under each name. After `keep_s` an entry is none any more.
    """

    def __init__(
        self,
        mesh: ServiceContext,
        pending: PendingResults,
        serving: Callable[[], Serving],
        keep_s: float,
    ) -> None:
        self._mesh = mesh
        self._storage = mesh.storage
        self._pending = pending
        self._serving = serving
        self._identities: dict[str, str | None] = {}
        self._keep_s = keep_s
        self._bucket = Bucket(mesh.client, subjects.CACHE_BUCKET, messages(CacheEntry))
        self._following: dict[str, _Follower] = {}

    def leader_of(self, request_id: str) -> str:
        """Whose result a request waits for: its own, if it follows nobody."""
        follower = self._following.get(request_id)
        return request_id if follower is None else follower.leader

    def leave(self, request_id: str) -> bool:
        """The client of a request has gone. False if that request followed nobody."""
        follower = self._following.get(request_id)
        if follower is not None:
            follower.left = True
        return follower is not None

    async def result_for(self, ask: Ask, request_id: str, caller: Caller, own: Own) -> Result:
        """The result of an equal request, or of this one. Raises DeadlineExceeded, and what `own` raises."""
        if not self._keep_s or (not caller.new and await self._pending.stored(request_id) is not None):
            return await own(0)
        key = subjects.cache_key(caller.tenant, self._said(ask))
        until_s = time.monotonic() + ask.timeout_s
        failed: list[str] = []
        while True:
            entry = await self._entry(key)
            leader = self._leader(entry)
            if entry is None:
                return await own(len(failed))
            if leader in (None, request_id, *failed):
                if leader != request_id and not await self._lead(key, request_id, entry.revision):
                    continue
                return (await own(len(failed))).model_copy(update={"cache": "miss"})
            assert leader is not None
            if ask.cache_settled and await self._pending.stored(leader) is None:
                return (await own(len(failed))).model_copy(update={"cache": "miss"})
            result, cache = await self._follow(leader, ask, request_id, caller, len(failed), until_s)
            if result is not None and result.error is None:
                return result.standing_for(request_id, cache)
            failed.append(leader)

    async def keep(self, result: Result, took_ns: int, *, new: bool) -> bool:
        """Stores an equal request's result under the id of whoever gets it, and tells of it. False where that
        fails: it is an answer all the same."""
        subject = subjects.result(result.request_id)
        try:
            if not new and await self._pending.stored(result.request_id) is not None:
                return True
            stored = await self._storage.store_once(subject, result.to_bytes(), KEEP_PATIENCE_S)
        except (BrokerUnavailable, PayloadTooLarge) as error:
            log.warning("not stored under its own id", request_id=result.request_id, why=str(error))
            return False
        if stored:
            tenant = subjects.owner_of(result.request_id)
            self._mesh.events.publish(
                RequestShared,
                request_id=result.request_id,
                topology=result.topology,
                models=tuple(dict.fromkeys(answer.model for answer in result.answers)),
                cache=result.cache,
                cached_from=subjects.owned_id(tenant, result.cached_from or ""),
                total_duration_ns=took_ns,
            )
        return True

    def _said(self, ask: Ask) -> str:
        """A hash of what a request says, and of who would answer it."""
        serving = self._serving()
        names = (ask.model,) if ask.model is not None else ask.models or sorted(serving)
        return said_by(ask.fingerprint, [f"{name} {self._identity(name, serving)}" for name in names])

    def _identity(self, name: str, serving: Serving) -> str | None:
        """What is served under a name, or was when it was served last: an agent that is started anew brings
        the same."""
        if served := serving.get(name):
            self._identities[name] = identity_of(served)
        return self._identities.get(name)

    async def _entry(self, key: str) -> Entry[CacheEntry] | None:
        """The entry of the bucket; None if it cannot be used."""
        try:
            return await self._bucket.get(key)
        except UNUSABLE as error:
            log.warning("the cache could not be read", why=str(error))
            return None

    def _leader(self, entry: Entry[CacheEntry] | None) -> str | None:
        if entry is None or entry.value is None:
            return None
        fresh = self._mesh.clock.now() < entry.value.at_s + self._keep_s
        return entry.value.request_id if fresh else None

    async def _lead(self, key: str, request_id: str, revision: int) -> bool:
        """Whether the request may be answered itself: False if another one was faster."""
        entry = CacheEntry(request_id=request_id, at_s=self._mesh.clock.now())
        try:
            await self._bucket.update(key, entry, revision)
        except WrongRevision:
            return False
        except UNUSABLE as error:
            log.warning("not entered in the cache", why=str(error))
        return True

    async def _follow(
        self, leader: str, ask: Ask, request_id: str, caller: Caller, attempts_before: int, until_s: float
    ) -> tuple[Result | None, CacheUse]:
        """The result of the leader, and whether it was there already; None for one that was lost."""
        if (result := await self._pending.stored(leader)) is not None:
            return result, "hit"
        follower = self._following[request_id] = _Follower(leader)
        try:
            if not ask.stream:
                return await self._wait(follower, request_id, until_s), "shared"
            async with TokenRelay.open(
                self._storage, leader, caller, told_as=request_id, attempts_before=attempts_before
            ) as relay:
                await relay.replay()
                result = await self._wait(follower, request_id, until_s)
                if result is not None and result.error is None:
                    await relay.finish(result)
                return result, "shared"
        finally:
            self._following.pop(request_id, None)

    async def _wait(self, follower: _Follower, request_id: str, until_s: float) -> Result | None:
        leader = follower.leader
        with self._pending.register(leader) as waiter:
            while (left_s := until_s - time.monotonic()) > 0:
                result = await self._pending.stored(leader)
                if result is None:
                    result = await self._pending.wait(leader, waiter, min(left_s, LOOK_S))
                if result is not None:
                    return result
                if follower.left:
                    raise Cancelled("cancelled by the client")
                if await queued_message(self._storage, leader) is None:
                    return await self._pending.stored(leader)
        raise DeadlineExceeded(f"no result of request {subjects.bare_id(request_id)} in its time")


def said_by(fingerprint: str, members: Iterable[str] = ()) -> str:
    """A hash that equal requests to the same members share."""
    return hashlib.sha256("\n".join((fingerprint, *members)).encode()).hexdigest()[:HASH_LENGTH]
