"""Pending results: whoever waits for a result gets it the moment it is stored."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial

from nats.aio.msg import Msg
from pydantic import ValidationError

from schemas import subjects
from schemas.errors import BrokerUnavailable, InternalError, UnsupportedVersion
from schemas.replies import Result
from services.chassis.nats.streams import Storage
from services.tasks.stored_replies import StoredReplies

POLL_INTERVAL_S = 2.0


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
