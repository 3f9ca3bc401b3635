"""Simulated servers whose behaviour is known exactly: what the generator is checked against."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection

from loadtest.generate.request_record import TIMED_OUT, RequestRecord
from loadtest.generate.workloads import Fields
from loadtest.targets.target import Clock


class SingleServer:
    """One server with a queue, first come first served; `service_s` says how long each request takes.

    The time at which a request is done is computed from when it arrived, so that what it takes to simulate
    does not slow the queue down. `arrived_s` and `waits_s` keep what happened, by the server's own clock.
    """

    def __init__(self, service_s: Callable[[], float]) -> None:
        self._service_s = service_s
        self._free_s = 0.0
        self._clock: Clock = lambda: 0.0
        self.waits_s: list[float] = []

    async def open(self, clock: Clock) -> None:
        self._clock = clock

    async def send(self, record: RequestRecord, fields: Fields) -> None:
        arrived_s = self._clock()
        begun_s = max(arrived_s, self._free_s)
        self._free_s = begun_s + self._service_s()
        self.waits_s.append(begun_s - arrived_s)
        delay_s = self._free_s - arrived_s
        asyncio.get_running_loop().call_later(delay_s, lambda: record.end(self._clock()))

    async def settle(self, records: Collection[RequestRecord]) -> None:
        for record in records:
            record.end(self._clock(), TIMED_OUT)

    async def close(self) -> None:
        pass


class StallingServer(SingleServer):
    """Answers at once, but for one second, from `stall_s` on, in which it answers nothing."""

    def __init__(self, stall_s: float, service_s: float) -> None:
        super().__init__(lambda: service_s)
        self._stall_s = stall_s

    async def send(self, record: RequestRecord, fields: Fields) -> None:
        now_s = self._clock()
        if self._stall_s <= now_s < self._stall_s + 1.0:
            self._free_s = self._stall_s + 1.0
        await super().send(record, fields)


class DeafServer(SingleServer):
    """Takes requests and never answers."""

    def __init__(self) -> None:
        super().__init__(lambda: 0.0)

    async def send(self, record: RequestRecord, fields: Fields) -> None:
        pass
