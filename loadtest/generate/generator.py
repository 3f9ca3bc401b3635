"""Sends the requests of one process: open loop at given times, or closed loop by so many users.

Open loop means that a request starts when its time has come, whether others are answered or not. It starts
late only if this process is too slow or if `max_in_flight` requests are open; both times are kept, so that
a server that stalls cannot hide behind a client that waits for it (coordinated omission).
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable, Iterator

from loadtest.generate.plan import Planned
from loadtest.generate.request_record import RequestRecord
from loadtest.targets.target import Target

GRACE_S = 3.0
"""How long after a request's own timeout its reply may still be on the way."""
LOOK_EVERY_S = 0.1
NEVER_BLOCK_S = 0.02
"""A sender that is behind lets replies be handled at least this often."""


class Generator:
    """One process's part of a run. All records are kept; memory grows with their number."""

    def __init__(self, target: Target, timeout_s: float, max_in_flight: int | None = None) -> None:
        self._target = target
        self._patience_s = timeout_s + GRACE_S
        self._places = asyncio.Semaphore(max_in_flight) if max_in_flight else None
        self._started_s = time.perf_counter()
        self.records: list[RequestRecord] = []
        self.in_flight: dict[int, RequestRecord] = {}

    def clock(self) -> float:
        """Seconds since the start of the run."""
        return time.perf_counter() - self._started_s

    async def open(self) -> None:
        """Connects."""
        await self._target.open(self.clock)

    def start(self, in_s: float = 0.0) -> None:
        """The run starts `in_s` seconds from now."""
        self._started_s = time.perf_counter() + in_s

    async def run_open(self, planned: Iterable[Planned]) -> None:
        """Sends each request at its time, until there are no more."""
        paused_s = self.clock()
        for request in planned:
            while (early_s := request.start_s - self.clock()) > 0:  # timers may wake a little early
                await asyncio.sleep(early_s)
                paused_s = self.clock()
            if self.clock() - paused_s > NEVER_BLOCK_S:
                await asyncio.sleep(0)
                paused_s = self.clock()
            await self._send(request, request.start_s)

    async def run_closed(self, planned: Iterator[Planned], users: int, until_s: float | None) -> None:
        """`users` ask, wait for the answer, and ask again, until `until_s` or until there are no more."""

        async def user() -> None:
            for request in planned:
                if until_s is not None and self.clock() >= until_s:
                    return
                ended = asyncio.Event()
                await self._send(request, self.clock(), ended)
                async with asyncio.timeout(self._patience_s):
                    await ended.wait()

        await asyncio.sleep(max(0.0, -self.clock()))
        await asyncio.gather(*(user() for _ in range(users)), return_exceptions=True)

    async def finish(self) -> None:
        """Waits for what is open, as long as it may take; then finds out what became of it, and closes."""
        while self._may_be_answered():  # noqa: ASYNC110  (it depends on the clock)
            await asyncio.sleep(LOOK_EVERY_S)
        await self._target.settle(list(self.in_flight.values()))
        await self._target.close()

    def _may_be_answered(self) -> bool:
        end_s = self.clock() - self._patience_s
        return any(record.sent_s > end_s for record in self.in_flight.values())

    async def _send(self, request: Planned, intended_s: float, ended: asyncio.Event | None = None) -> None:
        record = RequestRecord(request.number, request.workload, intended_s)
        if self._places is not None:
            await self._places.acquire()

        def on_end() -> None:
            del self.in_flight[record.number]
            if self._places is not None:
                self._places.release()
            if ended is not None:
                ended.set()

        record.on_end = on_end
        self.records.append(record)
        self.in_flight[record.number] = record
        record.sent_s = self.clock()
        await self._target.send(record, request.fields)
