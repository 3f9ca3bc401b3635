"""Keeps the embedded broker at work: started again when it dies, and when it has stopped storing.

A server whose disk was full does not store again by itself, although there is room: the error stays with each
stream that met it, its process lives, and what is kept in memory goes on as if nothing were. So the
controller watches the free space, the server's log and a message of its own that it has stored every few
seconds.
"""

from __future__ import annotations

import asyncio
import shutil
import time
from collections.abc import Awaitable, Callable
from functools import partial

import nats.errors
import nats.js.errors
from nats.aio.client import Client

from infra.broker.broker import Broker
from infra.broker.server.store import LEAST_FREE_BYTES
from infra.broker.watch.broker_problem import BrokerProblem
from infra.broker.watch.canary import store_canary
from infra.host.children.child import BackOff
from schemas.broker import catalog
from schemas.errors import ConfigurationError
from services.chassis.nats.connecting.address import why

LOOK_INTERVAL_S = 0.25
DISK_INTERVAL_S = 1.0
CANARY_INTERVAL_S = 5.0
CANARY_PATIENCE_S = 5.0
CANARY_FAILURES = 3
"""So often in a row nothing is stored before the server, and not a slow disk, is blamed."""
PAUSE_AFTER_FULL_S = 5.0
"""Between two starts there is a pause, which grows where they do not help. After a disk that was full it does
not: that there is room is news, and asks are to be answered within 30 s of it."""


class BrokerController:
    """Watches over one embedded broker. `say` is told what happens; `instance` is who complains in a lease.

    Below `min_free_bytes` of free space it warns.
    """

    def __init__(
        self,
        broker: Broker,
        instance: str,
        min_free_bytes: int,
        say: Callable[[str], None],
        *,
        alone: bool = True,
    ) -> None:
        """One that is not `alone` stores together with other servers: that nothing is stored may be the lack
        of those, so it is started again for what its own log says only."""
        self._alone = alone
        self._broker = broker
        self._told = BrokerProblem(instance, say)
        self._min_free_bytes = min_free_bytes
        self._say = say
        self._starting = asyncio.Lock()
        self._restarts = BackOff(first_s=15.0, longest_s=600.0, stable_s=1200.0)
        self._not_before_s = 0.0
        self._restarted_s = time.monotonic()
        self._failures = 0
        self._why = ""

    async def keep_alive(self) -> None:
        """Starts the server again whenever its process has ended, for ever."""
        back_off = BackOff()
        started_s = time.monotonic()
        while True:
            await asyncio.sleep(LOOK_INTERVAL_S)
            async with self._starting:
                if self._broker.alive:
                    continue
                wait_s = back_off.after(time.monotonic() - started_s)
                self._say(f"the broker died; it starts again in {wait_s:g} s")
                await asyncio.sleep(wait_s)
                started_s = time.monotonic()
                try:
                    await self._broker.start()
                except ConfigurationError as error:
                    self._say(error.message)

    async def keep_storing(self, client: Client) -> None:
        """Sees to it that the server stores, and says in a lease why it does not, for ever."""
        js = client.jetstream(timeout=CANARY_PATIENCE_S)
        next_canary_s = 0.0
        while True:
            await asyncio.sleep(DISK_INTERVAL_S)
            try:
                if not client.is_connected:
                    continue  # whether it lives is looked after elsewhere
                if time.monotonic() >= next_canary_s:
                    next_canary_s = time.monotonic() + CANARY_INTERVAL_S
                    await self._sing(partial(store_canary, js))
                free = shutil.disk_usage(self._broker.directory).free
                problem = self._problem(free)
                if free < LEAST_FREE_BYTES:
                    self._restart_soon()
                if problem is not None and free >= LEAST_FREE_BYTES and self._broken:
                    await self._restart()
                await self._told.publish(client, problem)
            except (nats.errors.Error, nats.js.errors.Error, OSError) as error:
                self._say(f"whether the broker stores could not be looked at: {why(error)}")

    async def _sing(self, publish: Callable[[], Awaitable[object]]) -> None:
        try:
            await publish()
        except (nats.errors.Error, nats.js.errors.Error) as error:
            self._failures += 1
            self._why = f"it took no message {self._failures} times in a row ({why(error)})"
        else:
            self._failures = 0

    @property
    def _broken(self) -> bool:
        """Whether the server has stopped storing, in one stream at least."""
        return (self._alone and self._failures >= CANARY_FAILURES) or self._broker.write_error is not None

    def _problem(self, free: int) -> str | None:
        where, free_mib = self._broker.directory, free // catalog.MIB
        if free < LEAST_FREE_BYTES:
            return f"the broker's disk is full ({free_mib} MiB free in {where}): nothing is stored; make room"
        if self._broken:
            reason = self._broker.write_error or self._why
            return f"the broker has stopped storing, and is started again: {reason}"
        if free < self._min_free_bytes:
            return (
                f"the broker's disk is nearly full ({free_mib} MiB free in {where}, less than "
                f"{self._min_free_bytes // catalog.MIB} MiB): make room before nothing can be stored"
            )
        return None

    def _restart_soon(self) -> None:
        """The disk is full, which is why nothing is stored: that earlier starts did not help is no sign."""
        self._restarts.failures = 0
        self._not_before_s = min(self._not_before_s, self._restarted_s + PAUSE_AFTER_FULL_S)

    async def _restart(self) -> None:
        """Starts the server anew; the next time only after a while, so never in a circle."""
        if time.monotonic() < self._not_before_s:
            return
        async with self._starting:
            wait_s = self._restarts.after(time.monotonic() - self._restarted_s)
            try:
                await self._broker.restart()
            except ConfigurationError as error:
                self._say(error.message)
            self._failures = 0
            self._restarted_s = time.monotonic()
            self._not_before_s = self._restarted_s + wait_s
