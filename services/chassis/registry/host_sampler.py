"""Publishes every few seconds what an instance and its host look like."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

import nats.errors
from nats.aio.client import Client

from schemas.events import NodeSampled
from services.chassis.process.supervise import Loops
from services.chassis.registry.lease import Load
from services.chassis.registry.machine import Machine
from services.chassis.telemetry.events import EventLog
from services.chassis.telemetry.tracing import Tracing

RTT_TIMEOUT_S = 2


class HostSampler:
    """Publishes a `NodeSampled` every `interval_s`."""

    def __init__(
        self,
        client: Client,
        events: EventLog,
        tracing: Tracing,
        load: Callable[[], Load],
        interval_s: float,
        loops: Loops,
    ) -> None:
        self._client = client
        self._events = events
        self._tracing = tracing
        self._load = load
        self._interval_s = interval_s
        self._loops = loops
        self._machine = Machine()
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Samples from now on."""
        self._task = self._loops.start(self._sample_for_ever(), "sampler")

    def stop(self) -> None:
        """Samples no more."""
        if self._task is not None:
            self._task.cancel()

    async def _sample_for_ever(self) -> None:
        while True:
            await self.sample()
            await asyncio.sleep(self._interval_s)

    async def sample(self) -> None:
        """Looks once, and says what there is to see."""
        look, load = await self._machine.sample(), self._load()
        self._events.publish(
            NodeSampled,
            cpu_percent=look.cpu_percent,
            memory_used_bytes=look.memory_used_bytes,
            host_memory_free_bytes=look.host_memory_free_bytes,
            load_average=look.load_average,
            gpus=look.gpus,
            slots=load.slots,
            busy=load.busy,
            queued=load.queued,
            broker_rtt_ns=await self._round_trip_ns(),
            traces_ignored=self._tracing.ignored,
            events_dropped=self._events.dropped,
        )

    async def _round_trip_ns(self) -> int | None:
        """How long a ping to the broker and its answer take; None while there is no answer."""
        # What `rtt` itself measures is of uvloop's clock, which knows whole milliseconds only.
        started_ns = time.perf_counter_ns()
        try:
            await self._client.rtt(RTT_TIMEOUT_S)
        except (nats.errors.Error, OSError, RuntimeError):  # uvloop's word for a transport that is closed
            return None
        return time.perf_counter_ns() - started_ns
