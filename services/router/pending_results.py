"""PendingResults for results: they pass on the republished subject the moment they are stored."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from contextlib import contextmanager

from nats.aio.msg import Msg
from pydantic import ValidationError

from schemas import subjects
from schemas.errors import BrokerUnavailable, UnsupportedVersion
from schemas.replies import Result
from services.chassis.nats.streams import Storage

POLL_INTERVAL_S = 2.0


class PendingResults:
    """All clients that wait for a result at this router."""

    def __init__(self, storage: Storage) -> None:
        self._storage = storage
        self._waiters: dict[str, set[asyncio.Future[Result]]] = {}

    async def start(self) -> None:
        """Listens for stored results."""
        await self._storage.client.subscribe(subjects.ALL_STORED_RESULTS, cb=self._on_result)

    async def _on_result(self, msg: Msg) -> None:
        waiters = self._waiters.get(subjects.request_of_result(msg.subject))
        if not waiters:
            return
        try:
            result = read_result(msg.data)
        except UnsupportedVersion as error:
            for waiter in waiters:
                if not waiter.done():
                    waiter.set_exception(error)
            return
        for waiter in waiters:
            if not waiter.done():
                waiter.set_result(result)

    @contextmanager
    def register(self, request_id: str) -> Iterator[asyncio.Future[Result]]:
        """A future for a result: registered before the request is stored, it misses nothing."""
        waiter: asyncio.Future[Result] = asyncio.get_running_loop().create_future()
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
        return None if stored is None else read_result(stored.data)

    async def wait(self, request_id: str, waiter: asyncio.Future[Result], seconds: float) -> Result | None:
        """The result, or None after `seconds`.

        Now and then the stream itself is read, in case the message passed while the connection was down.
        """
        end = time.monotonic() + seconds
        while True:
            left = end - time.monotonic()
            done, _ = await asyncio.wait([waiter], timeout=max(0.0, min(left, POLL_INTERVAL_S)))
            if done:
                return waiter.result()
            try:
                result = await self.stored(request_id)
            except BrokerUnavailable:
                result = None  # the request is accepted: it goes on when the broker is back
            if result is not None:
                return result
            if left <= POLL_INTERVAL_S:
                return None


def read_result(data: bytes) -> Result:
    """A stored result. UnsupportedVersion if this router is too old for it."""
    try:
        return Result.read(data)
    except ValidationError as error:
        raise UnsupportedVersion(
            "the result is there, and of a version that this router does not read: upgrade the router, and "
            "fetch it then"
        ) from error
