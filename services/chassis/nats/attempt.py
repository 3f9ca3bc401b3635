"""One attempt to reach the broker, which ends early where trying again is no use."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from services.chassis.nats.tls_problem import tls_problem
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
        if self._deadline is not None and self.problem is not None:
            self._deadline.reschedule(asyncio.get_running_loop().time())

    @asynccontextmanager
    async def within(self, patience_s: float) -> AsyncIterator[None]:
        """Raises TimeoutError when the time is over, or when a certificate is wrong."""
        async with asyncio.timeout(patience_s) as self._deadline:
            try:
                yield
            finally:
                self._deadline = None
