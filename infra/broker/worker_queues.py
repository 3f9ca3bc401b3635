"""Makes queues for the models of external workers when one is registered, without a restart.

Nobody but the operator may create consumers, so the supervisor of a host listens to the registrations.
Several hosts may do so at once: making a queue that is there changes nothing. Some time after the last worker
of a model was removed its queues go as well.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Collection

import nats.errors
import nats.js.errors
from nats.aio.client import Client
from pydantic import ValidationError

from infra.broker.provision import ensure_worker_model
from infra.broker.unused_queues import UnusedQueues
from schemas import subjects
from schemas.errors import ChoirError
from schemas.workers import Worker
from services.chassis.nats.bucket import Bucket, messages

RETRY_S = 2.0
LOOK_INTERVAL_S = 300.0
"""So often it is looked for queues that nobody uses."""


class WorkerQueues:
    """Sees to it that work for every registered worker's model can be queued and pulled."""

    def __init__(
        self, client: Client, served: Callable[[], Collection[str]], say: Callable[[str], None]
    ) -> None:
        self._js = client.jetstream()
        self._served = served
        self._say = say
        self._models: dict[str, str] = {}
        self._made: set[str] = set()
        self._unused = UnusedQueues(self._js, lambda: {*self._served(), *self._models.values()})
        self._changed = asyncio.Event()
        self._bucket = Bucket(
            client,
            subjects.WORKERS_BUCKET,
            messages(Worker),
            self._on_put,
            self._on_delete,
            self._on_unreadable,
        )

    async def keep(self) -> None:
        """Makes what is missing, and removes what nobody uses, for ever."""
        await self._bucket.watch()
        look_at_s = time.monotonic() + LOOK_INTERVAL_S
        while True:
            self._changed.clear()
            for model in sorted(self._missing):
                await self._make(model)
            if time.monotonic() >= look_at_s:
                await self._look()
                look_at_s = time.monotonic() + LOOK_INTERVAL_S
            try:
                async with asyncio.timeout(RETRY_S if self._missing else look_at_s - time.monotonic()):
                    await self._changed.wait()
            except TimeoutError:
                continue

    def again(self) -> None:
        """The broker was started again: what it has is to be looked at once more."""
        self._made.clear()
        self._changed.set()

    @property
    def _missing(self) -> set[str]:
        return set(self._models.values()) - self._made

    def _on_put(self, key: str, worker: Worker) -> None:
        self._forget(key)
        self._models[key] = worker.name
        self._changed.set()

    def _on_unreadable(self, key: str, _error: ValidationError) -> None:
        self._forget(key)
        self._say(f"the registration of worker {subjects.worker_of_key(key)} cannot be read")
        self._changed.set()

    def _on_delete(self, key: str) -> None:
        self._forget(key)

    def _forget(self, key: str) -> None:
        """The queues of a model without workers may go, by any host: they are not made for good any more."""
        model = self._models.pop(key, None)
        if model is not None and model not in self._models.values():
            self._made.discard(model)

    async def _look(self) -> None:
        try:
            gone = await self._unused.look(time.monotonic())
        except (nats.errors.Error, nats.js.errors.Error) as error:
            self._say(f"unused queues could not be looked for: {str(error) or type(error).__name__}")
            return
        self._made.difference_update(gone)
        for model in gone:
            self._say(f"the queue for {model} is removed: no worker has it any more")

    async def _make(self, model: str) -> None:
        try:
            await ensure_worker_model(self._js, model)
            self._made.add(model)
        except (ChoirError, nats.errors.Error, nats.js.errors.Error) as error:
            self._say(f"no queue for {model} yet: {str(error) or type(error).__name__}")
