"""The directory of live instances: the leases of the mesh.

A lease counts as run out by the time since it was last seen *here*, so clocks of other hosts do not
matter. Nobody is to blame for what the broker did not pass on: while no lease at all is heard, none runs out,
and afterwards everybody has time for a renewal.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable

from nats.aio.client import Client

from schemas import subjects
from schemas.broker.catalog import LEASE_TTL_S
from schemas.nodes.lease import NodeLease, ServedModel
from services.chassis.nats.bucket import Bucket, messages

SILENCE_S = LEASE_TTL_S / 2
"""Each instance renews its lease twice as often: if nobody at all has for so long, their broker is mute. It
stands still, or a cluster elects a leader."""
SERVING_KEPT_S = 0.2
"""A lease runs out in seconds: who serves what is not looked up anew for every request."""

Serving = dict[str, list[tuple[NodeLease, ServedModel]]]


def identity_of(served: Iterable[tuple[NodeLease, ServedModel]]) -> str | None:
    """What is served under one name by all these; None if none of them knows."""
    identities = {model.identity for _, model in served if model.identity is not None}
    return " ".join(sorted(identities)) or None


class Directory:
    """All live leases, each as `mark` has it: with what is not in it, and has to be known of it."""

    def __init__(self, client: Client, mark: Callable[[NodeLease], NodeLease] = lambda lease: lease) -> None:
        self._mark = mark
        self._leases: dict[str, tuple[float, NodeLease]] = {}
        self._heard = time.monotonic()
        self._serving: Serving | None = None
        self._serving_until = 0.0
        self._bucket = Bucket(
            client,
            subjects.NODES_BUCKET,
            messages(NodeLease),
            self._take,
            self._drop,
            on_missing=lambda _key: self._hear(),
        )

    async def start(self) -> None:
        """Returns when the leases of now are known."""
        await self._bucket.watch()

    async def reload(self) -> None:
        """Reads all leases again."""
        await self._bucket.reload()

    def _take(self, key: str, lease: NodeLease) -> None:
        self._hear()
        self._leases[key] = (time.monotonic(), lease)
        self._serving = None

    def _drop(self, key: str) -> None:
        self._hear()
        self._leases.pop(key, None)
        self._serving = None

    def _hear(self) -> None:
        """The broker passes on what it is told. Of a key that it has no more nothing else is known: leases
        are in its memory, and run out there while it is mute. Each instance is believed until its lease
        would have run out here. Otherwise nobody would serve anything for a moment."""
        now = time.monotonic()
        if now - self._heard > SILENCE_S:
            least = now - LEASE_TTL_S + SILENCE_S
            self._leases = {key: (max(seen, least), lease) for key, (seen, lease) in self._leases.items()}
        self._heard = now

    @property
    def nodes(self) -> tuple[NodeLease, ...]:
        """All live instances, in the order of service and instance."""
        return self._live(lambda _lease: True)

    def of(self, service: str) -> tuple[NodeLease, ...]:
        """The live instances of one service, in their order."""
        return self._live(lambda lease: lease.service == service)

    def _live(self, is_meant: Callable[[NodeLease], bool]) -> tuple[NodeLease, ...]:
        horizon = min(time.monotonic(), self._heard + SILENCE_S) - LEASE_TTL_S
        gone = [key for key, (seen, _) in self._leases.items() if seen <= horizon]
        self._bucket.forget(gone)
        for key in gone:
            del self._leases[key]
        leases = (self._mark(lease) for _, lease in self._leases.values() if is_meant(lease))
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
