"""Claims on external workers: one agent each, by compare-and-set on a key that expires with the agent.

A claim is put again and again by whoever has it, each time only if nobody else has put one since. An agent
that dies lets its claims run out, and the next one takes them.
"""

from __future__ import annotations

import time

from nats.aio.client import Client

from schemas import subjects
from schemas.broker.catalog import LEASE_TTL_S
from schemas.errors import BrokerUnavailable
from services.chassis.nats.bucket import BYTES, Bucket, WrongRevision


class Claims:
    """The claims of all agents as this one sees them, and its own."""

    def __init__(self, client: Client, instance: str) -> None:
        self._instance = instance.encode()
        self._others: dict[str, float] = {}
        self._revisions: dict[str, int] = {}
        self._pruned_s = 0.0
        self._bucket = Bucket(client, subjects.WORKER_CLAIMS_BUCKET, BYTES, self._on_put, self._on_delete)

    async def start(self) -> None:
        """Returns when the claims of now are known."""
        await self._bucket.watch()

    async def reload(self) -> None:
        """Reads all claims again."""
        await self._bucket.reload()

    def _on_put(self, key: str, holder: bytes) -> None:
        if holder != self._instance:
            self._others[key] = time.monotonic()
            self._prune()

    def _prune(self) -> None:
        """Claims that have run out say nothing when they go: they are forgotten here, now and then."""
        now_s = time.monotonic()
        if now_s < self._pruned_s + LEASE_TTL_S:
            return
        self._pruned_s = now_s
        gone = [key for key, heard_s in self._others.items() if now_s > heard_s + LEASE_TTL_S]
        self._bucket.forget(gone)
        for key in gone:
            del self._others[key]

    def _on_delete(self, key: str) -> None:
        self._others.pop(key, None)

    def is_free(self, worker_id: str) -> bool:
        """Whether no other agent has been heard to use it of late."""
        heard_s = self._others.get(subjects.worker_key(worker_id))
        return heard_s is None or time.monotonic() > heard_s + LEASE_TTL_S

    async def take(self, worker_id: str) -> bool:
        """Claims a worker; False if another agent has it or was faster."""
        entry = await self._bucket.get(subjects.worker_key(worker_id))
        if entry.value not in (None, self._instance):
            self._others.setdefault(subjects.worker_key(worker_id), time.monotonic())
            return False
        return await self._put(worker_id, entry.revision)

    async def renew(self, worker_id: str) -> bool:
        """Says that this agent still uses it; False if it has lost the claim."""
        return await self._put(worker_id, self._revisions.get(worker_id, 0))

    async def _put(self, worker_id: str, revision: int) -> bool:
        key = subjects.worker_key(worker_id)
        try:
            self._revisions[worker_id] = await self._bucket.update(key, self._instance, revision)
        except WrongRevision:
            self._revisions.pop(worker_id, None)
            return False
        return True

    async def release(self, worker_id: str) -> None:
        """Gives a claim back, if it is still this agent's."""
        revision = self._revisions.pop(worker_id, None)
        if revision is None:
            return
        try:
            await self._bucket.delete(subjects.worker_key(worker_id), revision)
        except (WrongRevision, BrokerUnavailable):
            return  # it is somebody else's by now, or runs out by itself
