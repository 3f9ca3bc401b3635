"""Pending results: whoever waits for one gets it the moment it is stored, or makes room for others.

A client that vanishes says nothing, and where tenants have accounts of their own the broker does not tell
either: a place would be taken until the request has ended. So when a tenant is refused a place, those of it
who have waited for a while are told `not_ready`, the longest first, an eighth of them a second. What they
asked for goes on: who is there asks again under the same id, or fetches, as the Python client does, and has a
place again.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from itertools import count

from nats.aio.msg import Msg
from pydantic import ValidationError

from schemas import subjects
from schemas.errors import BrokerUnavailable, InternalError, NotReady, UnsupportedVersion
from schemas.replies import Result
from services.chassis.logs import get_logger
from services.chassis.nats.streams import Storage
from services.tasks.stored_replies import StoredReplies

POLL_INTERVAL_S = 2.0
LEAST_WAIT_S = 5.0
"""Who has waited for less makes no room."""
PAUSE_S = 1.0
SHARE = 8
"""One of so many makes room at a time, and at least one."""

log = get_logger("router.pending_results")


class PendingResults:
    """All clients that wait for a result at this router: one subscription for all of them."""

    def __init__(
        self, storage: Storage, on_result: Callable[[str, bytes], None] = lambda _request_id, _data: None
    ) -> None:
        """`on_result` is told of every result that is stored, whoever waits for it."""
        self._storage = storage
        self._tell = on_result
        self._waiters: dict[str, set[StoredReplies[Result]]] = {}

    async def start(self) -> None:
        """Listens for stored results."""
        await self._storage.client.subscribe(subjects.ALL_STORED_RESULTS, cb=self._on_result)

    async def _on_result(self, msg: Msg) -> None:
        request_id = subjects.request_of(msg.subject)
        self._tell(request_id, msg.data)
        for waiter in self._waiters.get(request_id, ()):
            waiter.take(subjects.stored_subject(msg.subject), msg.data)

    @contextmanager
    def register(self, request_id: str) -> Iterator[StoredReplies[Result]]:
        """A waiter for a result: registered before the request is stored, it misses nothing."""
        read = partial(read_result, request_id)
        waiter = StoredReplies(self._storage, subjects.RESULTS_STREAM, read, POLL_INTERVAL_S)
        waiters = self._waiters.setdefault(request_id, set())
        waiters.add(waiter)
        try:
            yield waiter
        finally:
            waiters.discard(waiter)
            if not waiters:
                self._waiters.pop(request_id, None)

    async def stored(self, request_id: str) -> Result | None:
        """The result as it is stored, if it is."""
        stored = await self._storage.last(subjects.RESULTS_STREAM, subjects.result(request_id))
        return None if stored is None else read_result(request_id, stored.data)

    async def wait(self, request_id: str, waiter: StoredReplies[Result], seconds: float) -> Result | None:
        """The result, or None after `seconds`. UnsupportedVersion if this router is too old for it."""
        subject = subjects.result(request_id)
        until_s = time.monotonic() + seconds
        while (result := waiter.get(subject)) is None and time.monotonic() < until_s:
            with suppress(BrokerUnavailable):  # the request is accepted: it goes on when the broker is back
                await waiter.wait([subject], until_s)
        return result


def read_result(request_id: str, data: bytes) -> Result:
    """A stored result. UnsupportedVersion if this router is too old for it, InternalError if it is another
    request's: whoever put it there had no business with it."""
    try:
        result = Result.read(data)
    except ValidationError as error:
        raise UnsupportedVersion(
            "the result is stored, in a version that this router does not read: upgrade the router, and "
            "fetch it then"
        ) from error
    if result.request_id != request_id:
        raise InternalError("the message that is stored as this request's result belongs to another request")
    return result


@dataclass
class _Waiting:
    tenant: str
    task: asyncio.Task[None] | None
    since_s: float
    makes_room: bool = False


class MakingRoom:
    """All who wait for a result at this router, in the order in which they began."""

    def __init__(self, now: Callable[[], float] = time.monotonic, least_wait_s: float = LEAST_WAIT_S) -> None:
        self._now = now
        self._least_wait_s = least_wait_s
        self._numbers = count()
        self._waiting: dict[int, _Waiting] = {}
        self._next_s: dict[str, float] = {}

    @contextmanager
    def waits(self, tenant: str, request_id: str) -> Iterator[None]:
        """As long as this lasts its task waits for a result. Raises NotReady if it is to make room."""
        number = next(self._numbers)
        one = self._waiting[number] = _Waiting(tenant, asyncio.current_task(), self._now())
        try:
            yield
        except asyncio.CancelledError:
            if not one.makes_room or one.task is None or one.task.uncancel():
                raise
            raise NotReady(
                f"request {subjects.bare_id(request_id)} is still being worked on, and others wait for a "
                "place: fetch its result",
                retry_after_s=1.0,
            ) from None
        finally:
            del self._waiting[number]

    def on_refused(self, tenant: str) -> None:
        """A tenant was refused a place: some of those who have waited for long give up theirs."""
        now_s = self._now()
        if now_s < self._next_s.get(tenant, 0.0):
            return
        self._next_s[tenant] = now_s + PAUSE_S
        all_ = [one for one in self._waiting.values() if one.tenant == tenant and not one.makes_room]
        going = all_[: len(all_) // SHARE + 1]
        for one in going:
            if one.task is not None and one.since_s <= now_s - self._least_wait_s:
                one.makes_room = True
                one.task.cancel("makes room")
        if gone := sum(one.makes_room for one in going):
            log.info("those who waited longest make room for others", tenant=tenant, count=gone)
