"""Which agent uses which worker: one only, by compare-and-set on a key that runs out with its agent.

A claim is put again and again by whoever has it, each time only if nobody else has put one since. An agent
that dies lets its claims run out, and the next one takes them.
"""

from __future__ import annotations

import time

import nats.errors
import nats.js.errors
from nats.aio.client import Client
from nats.js import JetStreamContext

from schemas import subjects
from schemas.catalog import LEASE_TTL_S
from services.chassis.nats.bucket import BYTES, Bucket
from services.chassis.nats.streams import Storage

WRONG_SEQUENCE = 10071
OPERATION_HEADER = "KV-Operation"
DELETED = "DEL"


class Claims:
    """The claims of all agents as this one sees them, and its own."""

    def __init__(self, client: Client, instance: str) -> None:
        self._js = JetStreamContext(client, timeout=2.0)
        self._storage = Storage(client)
        self._instance = instance.encode()
        self._others: dict[str, float] = {}
        self._sequences: dict[str, int] = {}
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
        subject = self._subject(worker_id)
        stored = await self._storage.last(subjects.bucket_stream(subjects.WORKER_CLAIMS_BUCKET), subject)
        if stored is not None and stored.data and stored.data != self._instance:
            self._others.setdefault(subjects.worker_key(worker_id), time.monotonic())
            return False
        return await self._put(worker_id, stored.sequence if stored is not None else 0)

    async def renew(self, worker_id: str) -> bool:
        """Says that this agent still uses it; False if it has lost the claim."""
        return await self._put(worker_id, self._sequences.get(worker_id, 0))

    async def _put(self, worker_id: str, expected: int) -> bool:
        headers = {subjects.EXPECTED_SEQUENCE_HEADER: str(expected)}
        try:
            ack = await self._js.publish(self._subject(worker_id), self._instance, headers=headers)
        except nats.js.errors.APIError as error:
            if error.err_code != WRONG_SEQUENCE:
                raise
            self._sequences.pop(worker_id, None)
            return False
        self._sequences[worker_id] = ack.seq
        return True

    async def release(self, worker_id: str) -> None:
        """Gives a claim back, if it is still this agent's."""
        sequence = self._sequences.pop(worker_id, None)
        if sequence is None:
            return
        headers = {subjects.EXPECTED_SEQUENCE_HEADER: str(sequence), OPERATION_HEADER: DELETED}
        try:
            await self._js.publish(self._subject(worker_id), b"", headers=headers)
        except (nats.js.errors.APIError, nats.errors.Error):
            return  # it is somebody else's by now, or runs out by itself

    def _subject(self, worker_id: str) -> str:
        return subjects.bucket_key(subjects.WORKER_CLAIMS_BUCKET, subjects.worker_key(worker_id))
