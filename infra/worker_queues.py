"""Queues for the models of external workers: made when a worker is registered, without a restart.

Nobody but the operator may create consumers, so the supervisor of a host listens to the registrations.
Several hosts may do so at once: making a queue that is there changes nothing.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import nats.errors
import nats.js.errors
from nats.aio.client import Client
from pydantic import ValidationError

from infra.provision import ensure_model
from schemas import subjects
from schemas.errors import ChoirError
from schemas.workers import Worker
from services.chassis.bucket_view import BucketView

RETRY_S = 2.0


class WorkerQueues:
    """Sees to it that work for every registered worker's model can be queued and pulled."""

    def __init__(self, client: Client, say: Callable[[str], None]) -> None:
        self._js = client.jetstream()
        self._say = say
        self._wanted: set[str] = set()
        self._made: set[str] = set()
        self._changed = asyncio.Event()
        self._view = BucketView(client, subjects.WORKERS_BUCKET, self._on_put, lambda _key: None)

    async def keep(self) -> None:
        """Makes what is missing, for ever."""
        await self._view.start()
        while True:
            self._changed.clear()
            for model in sorted(self._wanted - self._made):
                await self._make(model)
            if self._wanted <= self._made:
                await self._changed.wait()
            else:
                await asyncio.sleep(RETRY_S)

    def again(self) -> None:
        """The broker was started again: what it has is to be looked at once more."""
        self._made.clear()
        self._changed.set()

    def _on_put(self, key: str, data: bytes) -> None:
        try:
            self._wanted.add(Worker.read(data).name)
        except ValidationError:
            self._say(f"the registration of worker {subjects.worker_of_key(key)} cannot be read")
        self._changed.set()

    async def _make(self, model: str) -> None:
        try:
            await ensure_model(self._js, model)
            self._made.add(model)
        except (ChoirError, nats.errors.Error, nats.js.errors.Error) as error:
            self._say(f"no queue for {model} yet: {str(error) or type(error).__name__}")
