"""The problem of a broker: said when it comes and goes, and in a lease, where the routers see it."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Callable
from importlib.metadata import version

from nats.aio.client import Client

from schemas import subjects
from schemas.broker import catalog
from schemas.errors import BrokerUnavailable
from schemas.nodes.lease import NodeLease

LEASE_INTERVAL_S = catalog.LEASE_TTL_S / 4
PATIENCE_S = 5.0
SERVICE = "supervisor"


class BrokerProblem:
    """What a supervisor tells of its broker. `say` is told; `instance` is who complains in the lease."""

    def __init__(self, instance: str, say: Callable[[str], None]) -> None:
        self._instance = instance
        self._say = say
        self._said = ""
        self._leased = False
        self._next_lease_s = 0.0

    async def publish(self, client: Client, problem: str | None) -> None:
        """Says the problem of this moment, None for none, and leases it for as long as there is one.

        It is said when it comes and when it goes, not over and over with other figures. Raises a
        nats.errors.Error if it cannot be leased.
        """
        kind = "" if problem is None else problem.partition("(")[0].partition(":")[0]
        if kind != self._said:
            self._say(problem or "the broker stores again, and there is room")
        self._said = kind
        if time.monotonic() >= self._next_lease_s or self._leased != (problem is not None):
            self._next_lease_s = time.monotonic() + LEASE_INTERVAL_S
            await self._lease(client, problem)

    async def _lease(self, client: Client, problem: str | None) -> None:
        if problem is None and not self._leased:
            return
        now_s = time.time()
        body = None if problem is None else BrokerUnavailable(problem).body()
        lease = NodeLease(
            service=SERVICE,
            instance=self._instance,
            host=socket.gethostname(),
            pid=os.getpid(),
            version=version("choir"),
            state="broken" if problem is not None else "ready",
            started_at_s=now_s,
            seen_at_s=now_s,
            problem=body,
        )
        bucket = await client.jetstream(timeout=PATIENCE_S).key_value(subjects.NODES_BUCKET)
        key = subjects.node_key(SERVICE, self._instance)
        if problem is None:
            await bucket.delete(key)
        else:
            await bucket.put(key, lease.to_bytes())
        self._leased = problem is not None
