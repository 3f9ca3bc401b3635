"""Makes queues for the models of external workers when one is registered, and for those that an agent offers
to load on demand, without a restart.

Nobody but the operator may create consumers, so the supervisor of a host listens to the registrations, and
looks at the leases; of what a lease offers only models count that the store of the mesh keeps.
First agents are given the right to take that work, then there is a queue.
Several hosts may do so at once: making a queue that is there changes nothing. Some time after the last worker
of a model was removed its queues go as well.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Collection

import nats.errors
import nats.js.errors
from nats.aio.client import Client
from pydantic import ValidationError

from infra.broker.provision import ensure_worker_model
from infra.broker.streams.unused_queues import UnusedQueues
from schemas import subjects
from schemas.errors import ChoirError
from schemas.nodes.model_store import StoredModel
from schemas.nodes.workers import Worker
from services.chassis.nats.bucket import Bucket, messages

RETRY_S = 2.0
LEASES_INTERVAL_S = 1.0
"""So often the leases are looked at for models on demand."""
LOOK_INTERVAL_S = 300.0
"""So often it is looked for queues that nobody uses."""


class WorkerQueues:
    """Sees to it that work for every registered worker's model can be queued and pulled, and that for every
    model of the store that some agent would load `on_demand`. `served` are all models that somebody serves.

    `let` has the broker know which models these are.
    """

    def __init__(
        self,
        client: Client,
        served: Callable[[], Collection[str]],
        say: Callable[[str], None],
        let: Callable[[Collection[str]], Awaitable[None]] | None = None,
        on_demand: Callable[[], Collection[str]] = frozenset,
    ) -> None:
        self._js = client.jetstream()
        self._served = served
        self._on_demand = on_demand
        self._say = say
        self._let = let
        self._models: dict[str, str] = {}
        self._loadable: set[str] = set()
        self._kept = Bucket(client, subjects.STORED_MODELS_BUCKET, messages(StoredModel))
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
        await self._watch()
        look_at_s = time.monotonic() + LOOK_INTERVAL_S
        while True:
            self._changed.clear()
            await self._look_for_loadable()
            await self._let_work()
            for model in sorted(self._missing):
                await self._make(model)
            if time.monotonic() >= look_at_s:
                await self._look()
                look_at_s = time.monotonic() + LOOK_INTERVAL_S
            try:
                async with asyncio.timeout(RETRY_S if self._missing else LEASES_INTERVAL_S):
                    await self._changed.wait()
            except TimeoutError:
                continue

    @property
    def _wanted(self) -> frozenset[str]:
        return frozenset((*self._models.values(), *self._loadable))

    async def _look_for_loadable(self) -> None:
        """Of what leases offer to load that counts which the store keeps: no lease opens other queues."""
        for model in set(self._on_demand()) - self._loadable:
            try:
                entry = await self._kept.get(subjects.stored_model_key(model))
            except ChoirError as error:
                self._say(f"the models of the store cannot be looked up yet: {error.message}")
                return
            if entry.value is not None:
                self._loadable.add(model)

    async def _let_work(self) -> None:
        if self._let is None:
            return
        try:
            await self._let(self._wanted)
        except ChoirError as error:
            self._say(f"agents may not take the work of all models yet: {error.message}")

    async def _watch(self) -> None:
        """A broker that is slow, or just starts again, is asked once more."""
        watch = self._bucket.watch
        while True:
            try:
                return await watch()
            except (nats.errors.Error, nats.js.errors.Error) as error:
                self._say(f"workers cannot be looked up yet: {str(error) or type(error).__name__}")
            await asyncio.sleep(RETRY_S)
            watch = self._bucket.reload

    def again(self) -> None:
        """The broker was started again: what it has is to be looked at once more."""
        self._made.clear()
        self._changed.set()

    @property
    def _missing(self) -> set[str]:
        return set(self._wanted - self._made)

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
        self._changed.set()

    def _forget(self, key: str) -> None:
        """The queues of a model without workers may go, by any host: they are not made for good any more."""
        model = self._models.pop(key, None)
        if model is not None and model not in self._models.values():
            self._made.discard(model)

    async def _look(self) -> None:
        self._loadable &= set(self._on_demand())
        try:
            gone = await self._unused.look(time.monotonic())
        except (nats.errors.Error, nats.js.errors.Error) as error:
            self._say(f"unused queues could not be looked for: {str(error) or type(error).__name__}")
            return
        self._made.difference_update(gone)
        for model in gone:
            self._say(f"the queue for {model} is removed: nobody has it any more")

    async def _make(self, model: str) -> None:
        try:
            await ensure_worker_model(self._js, model)
            self._made.add(model)
        except (ChoirError, nats.errors.Error, nats.js.errors.Error) as error:
            self._say(f"no queue for {model} yet: {str(error) or type(error).__name__}")
