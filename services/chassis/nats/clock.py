"""The broker's clock: the one by which the services of a mesh compare times.

Deadlines travel as times, and the clocks of two hosts may be a minute apart. So every service asks the
broker now and then what time it is, as Cristian's algorithm does: the answer was true at some moment between
question and reply, and the quicker they were the better it is known.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections import deque
from datetime import datetime
from typing import NamedTuple

import nats.errors
from nats.aio.client import Client

from schemas import subjects
from services.chassis.logs import get_logger
from services.chassis.process.supervise import Loops

MEASURE_INTERVAL_S = 5.0
MEASURE_TIMEOUT_S = 2.0
KEPT_SAMPLES = 8
JUMP_S = 0.1
"""So much more than the round trips explain: a clock was set, or the host slept."""

log = get_logger("chassis.clock")


class _Sample(NamedTuple):
    """The broker's time less the monotonic time here, known to half a round trip."""

    round_trip_s: float
    difference_s: float


class BrokerClock:
    """What time it is for the broker. Until the broker has said so it is this host's own."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._samples: deque[_Sample] = deque(maxlen=KEPT_SAMPLES)
        self._best: _Sample | None = None
        self._task: asyncio.Task[None] | None = None

    def now(self) -> float:
        """Seconds since the epoch."""
        return time.time() if self._best is None else time.monotonic() + self._best.difference_s

    @property
    def host_ahead_s(self) -> float | None:
        """How far this host's own clock is ahead of the broker's; None if that is not known."""
        return None if self._best is None else time.time() - self.now()

    async def start(self, loops: Loops) -> None:
        """Asks the broker, and goes on asking."""
        await self._try()
        self._task = loops.start(self._keep(), "clock")

    def stop(self) -> None:
        """Asks no more."""
        if self._task is not None:
            self._task.cancel()

    async def _keep(self) -> None:
        while True:
            await asyncio.sleep(MEASURE_INTERVAL_S)
            await self._try()

    async def _try(self) -> None:
        try:
            await self.measure()
        except (nats.errors.Error, ValueError, KeyError) as error:
            log.warning("the broker does not say what time it is", why=str(error) or type(error).__name__)

    async def measure(self, timeout_s: float = MEASURE_TIMEOUT_S) -> None:
        """Asks once. Every answer of the JetStream API about a stream carries the time.

        Raises nats.errors.Error if there is none within `timeout_s`.
        """
        asked_s = time.monotonic()
        reply = await self._client.request(
            subjects.stream_info(subjects.bucket_stream(subjects.NODES_BUCKET)), b"", timeout_s
        )
        came_s = time.monotonic()
        self._take(asked_s, datetime.fromisoformat(json.loads(reply.data)["ts"]).timestamp(), came_s)

    def _take(self, asked_s: float, broker_s: float, came_s: float) -> None:
        sample = _Sample(came_s - asked_s, broker_s - (asked_s + came_s) / 2)
        if self._best is not None:
            unexplained_s = abs(sample.difference_s - self._best.difference_s)
            unexplained_s -= (sample.round_trip_s + self._best.round_trip_s) / 2
            if unexplained_s > JUMP_S:
                self._samples.clear()
        self._samples.append(sample)
        self._best = min(self._samples)
