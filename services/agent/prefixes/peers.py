"""The other agents of the mesh, as their leases tell: which beginnings they keep, and who has room."""

from __future__ import annotations

import asyncio

from nats.aio.client import Client
from pydantic import ValidationError

from schemas import subjects
from schemas.errors import ChoirError
from schemas.nodes.lease import NodeLease
from services.agent.prefixes.choice import Holder
from services.chassis.logs import get_logger
from services.chassis.nats.bucket import BYTES, Bucket
from services.chassis.nats.connection import ConnectionEvents
from services.chassis.registry.lease import RENEW_INTERVAL_S

SERVICE = "agent"

log = get_logger("agent.prefixes")


class Peers:
    """Follows the leases of other agents from the first long prompt on: an agent that has none reads none."""

    def __init__(self, client: Client, connection: ConnectionEvents, instance: str) -> None:
        self._own = subjects.node_key(SERVICE, instance)
        self._connection = connection
        self._bucket = Bucket(client, subjects.NODES_BUCKET, BYTES, self._on_put, self._on_delete)
        self._holders: dict[str, dict[str, Holder]] = {}
        self._watching: asyncio.Task[None] | None = None

    def watch(self) -> None:
        """Begins to follow them, if it does not yet."""
        if self._watching is None:
            self._watching = asyncio.create_task(self._watch(), name="leases of agents")

    async def _watch(self) -> None:
        self._connection.on_reconnect(self._reload)
        self._connection.on_missed(subjects.bucket_updates(subjects.NODES_BUCKET), self._reload)
        while True:
            try:
                await self._bucket.watch()
            except ChoirError as error:
                log.warning("what other agents keep is not known", why=error.message)
                await asyncio.sleep(RENEW_INTERVAL_S)
            else:
                return

    async def _reload(self) -> None:
        await self._bucket.reload()

    def stop(self) -> None:
        """Follows them no more."""
        if self._watching is not None:
            self._watching.cancel()

    def of(self, model: str) -> list[Holder]:
        """The other agents that take work for a model."""
        return [models[model] for models in self._holders.values() if model in models]

    def _on_put(self, key: str, data: bytes) -> None:
        if key == self._own or not key.startswith(f"{SERVICE}."):
            return
        try:
            lease = NodeLease.read(data)
        except ValidationError as error:
            log.debug("lease not read", key=key, faults=error.error_count())
            return
        if lease.state != "ready" or lease.rests:
            self._holders.pop(key, None)
            return
        self._holders[key] = {
            model.name: Holder(lease.instance, frozenset(model.prefixes), model.slots - model.busy)
            for model in lease.models
            if model.problem is None and model.worker is None and model.on_demand is None
        }

    def _on_delete(self, key: str) -> None:
        self._holders.pop(key, None)
