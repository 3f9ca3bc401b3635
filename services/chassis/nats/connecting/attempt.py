"""One attempt to reach the broker, which ends early where trying again is no use."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from services.chassis.nats.connecting.tls_problem import tls_problem
from services.chassis.process.cancelling import AGAIN_S
from services.chassis.settings import MeshSection

NOT_LET_IN = "authorization violation"


class Attempt:
    """What went wrong so far while nats-py tries to connect as `mesh` says: it tells only its `error_cb`.

    A refusal is kept: the broker hangs up after it, sometimes before it can be read, and that is told as
    well.
    """

    def __init__(self, mesh: MeshSection) -> None:
        self.mesh = mesh
        self.fault: Exception | None = None
        self._deadline: asyncio.Timeout | None = None
        self._told_at_s = 0.0

    @property
    def refused(self) -> bool:
        """Whether the broker does not let us in."""
        return NOT_LET_IN in str(self.fault or "").lower()

    @property
    def problem(self) -> str | None:
        """What is wrong with the broker's certificate, or its TLS, if anything is."""
        return None if self.fault is None else tls_problem(self.fault, self.mesh)

    def failed(self, error: Exception) -> None:
        """For the `error_cb` of nats-py to call."""
        if not self.refused and self.problem is None:
            self.fault = error
        deadline, now_s = self._deadline, asyncio.get_running_loop().time()
        if deadline is None or deadline.expired():
            return
        if self.problem is not None:
            deadline.reschedule(now_s)
        elif not isinstance(error, TimeoutError):
            deadline.reschedule(max(now_s, self._told_at_s))

    @asynccontextmanager
    async def within(self, patience_s: float, silence_s: float = 0.0) -> AsyncIterator[None]:
        """Raises TimeoutError when the time is over, or when a certificate is wrong. While nothing
        is heard at all, the time is `silence_s`, if that is longer.

        nats-py tries for ever, and its `connect` may forget that it was cancelled (see `cancelling.ended`):
        it is told again until it ends.
        """
        task = asyncio.current_task()
        assert task is not None
        self._told_at_s = asyncio.get_running_loop().time() + patience_s
        async with asyncio.timeout(max(patience_s, silence_s)) as self._deadline:
            insisting = asyncio.create_task(_insist(task, self._deadline), name="insist")
            try:
                yield
            finally:
                insisting.cancel()
                self._deadline = None


async def _insist(task: asyncio.Task[Any], deadline: asyncio.Timeout) -> None:
    while True:
        await asyncio.sleep(AGAIN_S)
        if deadline.expired():
            task.cancel()
            task.uncancel()  # it is the same cancellation, once more
