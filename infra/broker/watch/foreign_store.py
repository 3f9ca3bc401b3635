"""Whether a broker stores that this host does not run: its disk and its limits cannot be seen from here.

An account is told what it has stored, and not how much room its server has left. So a message of the
supervisor's own is stored every few seconds, and the server's refusal is told.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import nats.errors
import nats.js.errors
from nats.aio.client import Client

from infra.broker.watch.broker_problem import PATIENCE_S, BrokerProblem
from infra.broker.watch.canary import store_canary
from services.chassis.nats.connecting.address import why

INTERVAL_S = 5.0
FAILURES = 3
"""So often in a row nothing is stored before the server is blamed, and not an election or a slow disk."""


class ForeignStore:
    """Watches what a foreign broker stores. `instance` complains in a lease; `say` is told too."""

    def __init__(
        self, client: Client, instance: str, say: Callable[[str], None], interval_s: float = INTERVAL_S
    ) -> None:
        self._client = client
        self._js = client.jetstream(timeout=PATIENCE_S)
        self._problem = BrokerProblem(instance, say)
        self._say = say
        self._interval_s = interval_s
        self._failures = 0

    async def keep(self) -> None:
        """Looks every few seconds, for ever."""
        while True:
            if self._client.is_connected:
                try:
                    await self._problem.publish(self._client, await self._look())
                except (nats.errors.Error, OSError) as error:
                    self._say(f"whether the broker stores could not be told: {why(error)}")
            await asyncio.sleep(self._interval_s)

    async def _look(self) -> str | None:
        """Why nothing is stored; None while something is, or it failed too seldom to tell."""
        try:
            await store_canary(self._js)
        except nats.errors.Error as error:
            self._failures += 1
            if self._failures < FAILURES:
                return None
            said = error.description if isinstance(error, nats.js.errors.APIError) else None
            return (
                f"the broker stores nothing (it took no message {self._failures} times in a row: "
                f"{said or why(error)}): make room on its disk, or raise the limits of its JetStream; a "
                "server whose disk was full stores again only when it has been started again"
            )
        self._failures = 0
        return None
