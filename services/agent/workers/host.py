"""The external workers of one agent process: it claims what is free, serves it, and gives back what goes.

What users register is in a bucket that every agent sees, so a worker is taken up without a restart, and
changed or dropped as its entry is.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import time
from contextlib import AsyncExitStack

import nats.errors
import nats.js.errors

from schemas import subjects
from schemas.broker.catalog import LEASE_TTL_S
from schemas.errors import ChoirError, NotPermitted
from schemas.nodes.lease import ServedModel
from schemas.nodes.workers import Worker
from services.agent.counting import Counting
from services.agent.settings import WorkersSection
from services.agent.workers.claims import Claims
from services.agent.workers.external import ExternalWorker, connect, unusable
from services.chassis.context import ServiceContext
from services.chassis.logs import get_logger
from services.chassis.nats.bucket import Bucket, messages
from services.chassis.process.cancelling import ended
from services.chassis.process.supervise import log_failure

TICK_S = 1.0
RENEW_S = LEASE_TTL_S / 4
COURTESY_S = 0.02
"""Before each claim an agent waits a little, longer the more it has: so they spread over the agents."""

LET_IN_PATIENCE_S = 10.0
"""After so long it is said that the broker does not let this agent work for a model. It hears of a worker at
the same time as agents do."""

LOOK_AGAIN_S = 0.25

LIVE_FIELDS = ("cordoned", "weight")
"""What can be changed without beginning anew."""

log = get_logger("agent.workers")


class WorkerHost:
    """Serves external workers, if the settings let it."""

    def __init__(self, mesh: ServiceContext, settings: WorkersSection, counting: Counting) -> None:
        self._mesh = mesh
        self._settings = settings
        self._counting = counting
        self._registered: dict[str, Worker] = {}
        self._serving: dict[str, ExternalWorker] = {}
        self._leaving: dict[str, asyncio.Task[None]] = {}
        self._unusable: dict[str, tuple[Worker, ChoirError]] = {}
        self._not_let_in_s: dict[str, float] = {}
        self._drained: list[ExternalWorker] = []
        self._claims = Claims(mesh.client, mesh.identity.instance)
        self._bucket = Bucket(
            mesh.client, subjects.WORKERS_BUCKET, messages(Worker), self._on_put, self._on_delete
        )
        self._changed = asyncio.Event()
        self._renewed_s = 0.0
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Takes its part of the workers from now on."""
        if not self._settings.enabled:
            return
        await self._claims.start()
        await self._bucket.watch()
        self._mesh.connection.on_disconnect(self._mark_unfresh)
        for bucket, reload in (
            (subjects.WORKERS_BUCKET, self._bucket.reload),
            (subjects.WORKER_CLAIMS_BUCKET, self._claims.reload),
        ):
            self._mesh.connection.on_missed(subjects.bucket_updates(bucket), reload)
        self._task = self._mesh.loops.start(self._keep(), "external workers")

    async def stop(self) -> None:
        """Finishes what is in work, and lets others have the workers."""
        if self._task is not None:
            await ended([self._task])
        for worker_id in list(self._serving):
            self._drop(worker_id)
        await asyncio.gather(*self._leaving.values(), return_exceptions=True)

    def cancel(self, request_id: str) -> None:
        """Nobody waits for this request any more."""
        for serving in (*self._serving.values(), *self._drained):
            serving.cancel(request_id)

    async def look_for_cancelled(self) -> None:
        """Cancellations were missed."""
        for serving in (*self._serving.values(), *self._drained):
            await serving.look_for_cancelled()

    def summaries(self) -> tuple[ServedModel, ...]:
        """What the lease says of the workers that this agent has."""
        refused = (
            unusable(worker, error)
            for worker, error in self._unusable.values()
            if self._claims.is_free(worker.id)
        )
        return (*(serving.summary() for serving in self._serving.values()), *refused)

    async def resume(self) -> None:
        """After a reconnection."""
        if self._task is None:
            return
        await self._claims.reload()
        await self._bucket.reload()
        for serving in list(self._serving.values()):
            await serving.resume()

    def _mark_unfresh(self) -> None:
        for serving in self._serving.values():
            serving.mark_unfresh()

    # --- what is registered -------------------------------------------------------------

    def _on_put(self, _key: str, worker: Worker) -> None:
        if worker.only_on in (None, self._mesh.identity.host):
            self._registered[worker.id] = worker
        else:
            self._registered.pop(worker.id, None)
        self._changed.set()

    def _on_delete(self, key: str) -> None:
        self._registered.pop(subjects.worker_of_key(key), None)
        self._changed.set()

    async def _keep(self) -> None:
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(TICK_S):
                    await self._changed.wait()
            self._changed.clear()
            try:
                await self._reconcile()
            except (ChoirError, nats.errors.Error, nats.js.errors.Error) as error:
                log.warning("workers not looked after", why=str(error) or type(error).__name__)

    async def _reconcile(self) -> None:
        """Makes what is served what is registered and claimed."""
        for worker_id, serving in list(self._serving.items()):
            wanted = self._registered.get(worker_id)
            if wanted is None or _must_begin_anew(serving.worker, wanted):
                self._drop(worker_id)
            elif wanted != serving.worker:
                await serving.change(wanted)
        for worker_id in [worker_id for worker_id in self._unusable if worker_id not in self._registered]:
            del self._unusable[worker_id]
        await self._renew()
        for worker_id in list(self._registered):
            if worker_id not in (*self._serving, *self._leaving) and self._claims.is_free(worker_id):
                await self._claim(worker_id)

    async def _renew(self) -> None:
        if time.monotonic() < self._renewed_s + RENEW_S:
            return
        self._renewed_s = time.monotonic()
        for worker_id in [*self._serving, *self._leaving]:
            if not await self._claims.renew(worker_id) and worker_id in self._serving:
                log.warning("another agent has taken a worker over", worker=worker_id)
                self._drop(worker_id)

    async def _claim(self, worker_id: str) -> None:
        await asyncio.sleep(random.uniform(0, COURTESY_S) * (1 + len(self._serving)))
        worker = self._registered.get(worker_id)
        if worker is None or not self._claims.is_free(worker_id) or not await self._is_let_in(worker):
            return
        try:
            backend = await asyncio.to_thread(connect, worker, self._settings)
        except ChoirError as error:  # it stays free: an agent elsewhere may have what is missing here
            self._refuse(worker, error)
            return
        self._unusable.pop(worker_id, None)
        async with AsyncExitStack() as undo:
            undo.push_async_callback(backend.close)
            if not await self._claims.take(worker_id):
                return
            undo.push_async_callback(self._claims.release, worker_id)
            serving = ExternalWorker(self._mesh, worker, backend, self._settings)
            await serving.start()
            undo.push_async_callback(serving.stop)
            await self._counting.add(worker.name, backend)
            undo.pop_all()  # from here on it is served: before, whatever fails leaves it to others
        self._serving[worker_id] = serving
        log.info("uses worker", worker=worker_id, model=worker.name, url=worker.url)

    async def _is_let_in(self, worker: Worker) -> bool:
        """Whether the broker lets this agent work for the worker's model: it gives all rights for one at
        once."""
        subject = subjects.count_tokens(worker.name)
        if await self._mesh.connection.may_hear(self._mesh.client, subject):
            self._not_let_in_s.pop(worker.name, None)
            return True
        since_s = self._not_let_in_s.setdefault(worker.name, time.monotonic())
        if time.monotonic() > since_s + LET_IN_PATIENCE_S:
            reason = (
                f"the broker does not let this agent take work of {worker.name}: is `choir up` running on "
                "the host of the broker?"
            )
            self._refuse(worker, NotPermitted(reason))
        else:
            asyncio.get_running_loop().call_later(LOOK_AGAIN_S, self._changed.set)
        return False

    def _refuse(self, worker: Worker, error: ChoirError) -> None:
        known = self._unusable.get(worker.id)
        self._unusable[worker.id] = worker, error
        if known is None or known[1].message != error.message:
            log.error("worker cannot be used", worker=worker.id, why=error.message)
            self._mesh.changed()

    def _drop(self, worker_id: str) -> None:
        """Takes no more for a worker. What it has in work is finished first, and others wait for that."""
        serving = self._serving.pop(worker_id)
        self._counting.remove(serving.worker.name, serving.backend)
        leaving = asyncio.create_task(self._leave(worker_id, serving), name=f"leave {worker_id}")
        leaving.add_done_callback(log_failure)
        self._leaving[worker_id] = leaving

    async def _leave(self, worker_id: str, serving: ExternalWorker) -> None:
        self._drained.append(serving)
        try:
            await serving.stop()
            await self._claims.release(worker_id)
        finally:
            self._drained.remove(serving)
            self._leaving.pop(worker_id, None)
            self._changed.set()
        log.info("uses worker no more", worker=worker_id)


def _must_begin_anew(old: Worker, new: Worker) -> bool:
    """Whether more has changed than what can be changed while it works."""
    same = {field: getattr(old, field) for field in LIVE_FIELDS}
    return new.model_copy(update=same) != old
