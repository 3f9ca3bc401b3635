"""The directory of live instances: the leases of the mesh.

A lease counts as run out by the time since it was last seen *here*, so clocks of other hosts do not
matter.
"""

from __future__ import annotations

import time

from nats.aio.client import Client

from schemas import subjects
from schemas.catalog import LEASE_TTL_S
from schemas.nodes import NodeLease, ServedModel
from services.chassis.nats.bucket import Bucket, messages

SERVING_KEPT_S = 0.2
"""A lease runs out in seconds: who serves what is not looked up anew for every request."""

Serving = dict[str, list[tuple[NodeLease, ServedModel]]]


class Directory:
    """All live leases."""

    def __init__(self, client: Client) -> None:
        self._leases: dict[str, tuple[float, NodeLease]] = {}
        self._serving: Serving | None = None
        self._serving_until = 0.0
        self._bucket = Bucket(
            client,
            subjects.NODES_BUCKET,
            messages(NodeLease),
            self._take,
            self._drop,
            on_missing=self._let_run_out,
        )

    async def start(self) -> None:
        """Returns when the leases of now are known."""
        await self._bucket.watch()

    async def reload(self) -> None:
        """Reads all leases again."""
        await self._bucket.reload()

    def _take(self, key: str, lease: NodeLease) -> None:
        self._leases[key] = (time.monotonic(), lease)
        self._serving = None

    def _drop(self, key: str) -> None:
        self._leases.pop(key, None)
        self._serving = None

    def _let_run_out(self, key: str) -> None:
        """Leases are in the broker's memory, so after a restart it has none: each instance is believed until
        its lease would have run out. Otherwise nobody would serve anything for a moment."""

    @property
    def nodes(self) -> tuple[NodeLease, ...]:
        """All live instances, in the order of service and instance."""
        horizon = time.monotonic() - LEASE_TTL_S
        gone = [key for key, seen in self._leases.items() if seen[0] < horizon]
        self._bucket.forget(gone)
        for key in gone:
            del self._leases[key]
        leases = (lease for _, lease in self._leases.values())
        return tuple(sorted(leases, key=lambda lease: (lease.service, lease.instance)))

    def serving(self) -> Serving:
        """Each model that can be asked now, with the instances that serve it."""
        now = time.monotonic()
        if self._serving is None or now > self._serving_until:
            self._serving, self._serving_until = self._look_up_serving(), now + SERVING_KEPT_S
        return self._serving

    def _look_up_serving(self) -> Serving:
        serving: Serving = {}
        for lease in self.nodes:
            if lease.state != "ready":
                continue
            for model in lease.models:
                if model.problem is None:
                    serving.setdefault(model.name, []).append((lease, model))
        return dict(sorted(serving.items()))
