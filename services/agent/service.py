"""An agent as a service: its models, a work loop for each that could be loaded, what it loads on demand, its
workers and lease."""

from __future__ import annotations

import asyncio

from nats.aio.msg import Msg

from schemas import subjects
from schemas.commands import Generate
from schemas.errors import ChoirError, ErrorBody
from schemas.nodes.lease import ServedModel
from schemas.nodes.loading import ManageLoaded
from services.agent.backends import Backend, backend_opener
from services.agent.counting import Counting
from services.agent.demand.host import ModelsOnDemand
from services.agent.file_hash import FileHash
from services.agent.keys import with_key
from services.agent.prefixes.handing_over import HandingOver, PrefixWorker
from services.agent.serving import Serving
from services.agent.settings import AgentSection, WorkersSection
from services.agent.workers.host import WorkerHost
from services.chassis.context import ServiceContext
from services.chassis.logs import get_logger
from services.chassis.nats.endpoints import Endpoints
from services.chassis.process.cancelling import ended
from services.chassis.registry.lease import Load
from services.chassis.work.loop import WorkLoop
from services.engine.model.devices import Devices, gpu_devices
from services.tasks.generate import BackendWorker

DESCRIPTION = "Generates answers with the models that it serves"
WATCH_INTERVAL_S = 0.25
IDLE_WATCH_INTERVAL_S = 1.0
"""Between two looks at models that have no work: each wakes the process."""

log = get_logger("agent")


class Agent:
    """Serves its models, and external workers. A model that cannot be loaded is said in the lease; the others
    go on."""

    def __init__(
        self,
        settings: AgentSection,
        workers: WorkersSection | None = None,
        devices: Devices = gpu_devices,
    ) -> None:
        self._settings = settings
        self._devices = devices
        self._workers_section = workers or WorkersSection()
        self._workers: WorkerHost | None = None
        self._on_demand: ModelsOnDemand | None = None
        self._handing_over: HandingOver | None = None
        self._serving = [Serving(model) for model in settings.models]
        self._watcher: asyncio.Task[None] | None = None

    async def start(self, mesh: ServiceContext) -> None:
        """Loads the models and begins to pull."""
        self._endpoints = Endpoints(mesh.client, mesh.identity, DESCRIPTION)
        await self._endpoints.start()
        self._counting = Counting(self._endpoints)
        self._cordon = mesh.cordon
        await self._cordon.start(mesh.connection)
        self._cordon.follow(mesh.changed)
        await asyncio.gather(*(self._load(serving) for serving in self._serving))
        await mesh.client.subscribe(subjects.ALL_CANCELS, cb=self._on_cancel)
        if self._settings.hands_over:
            self._handing_over = HandingOver(mesh, self._settings.prefix_wait)
            await self._handing_over.start()
        for serving in self._serving:
            if serving.backend is not None:
                await self._serve(mesh, serving, serving.backend)
        if self._settings.on_demand is not None:
            self._on_demand = ModelsOnDemand(
                mesh, self._settings.on_demand, self._settings.threads, self._counting, self._devices
            )
            await self._on_demand.start()
            orders = subjects.load_order(mesh.identity.instance)
            await self._endpoints.add(orders, ManageLoaded, self._on_demand.order)
        self._workers = WorkerHost(mesh, self._workers_section, self._counting)
        await self._workers.start()
        mesh.connection.on_reconnect(self._resume)
        mesh.connection.on_reconnect(self._look_for_cancelled)
        mesh.connection.on_missed(subjects.ALL_CANCELS, self._look_for_cancelled)
        self._watcher = mesh.loops.start(self._watch(mesh), "watch over models")

    @property
    def _all(self) -> tuple[Serving, ...]:
        """Its own models, and those that it may load."""
        return (*self._serving, *(() if self._on_demand is None else self._on_demand.servings))

    async def _load(self, serving: Serving) -> None:
        open_backend = backend_opener(self._settings.backend)
        try:
            model = with_key(serving.model, self._workers_section.keys)
            serving.backend = await open_backend(model, self._settings.threads)
            serving.file_hash = FileHash(serving.model)
            await serving.file_hash.read()
        except ChoirError as error:
            log.error("model cannot be served", model=serving.model.name, why=error.message)
            serving.problem = error.body()

    async def _serve(self, mesh: ServiceContext, serving: Serving, backend: Backend) -> None:
        name = serving.model.name
        serving.worker = self._worker(mesh, serving, backend)
        serving.loop = WorkLoop(
            mesh,
            Generate,
            subjects.COMMANDS_STREAM,
            [subjects.generate_consumer(priority, name) for priority in subjects.PRIORITIES],
            serving.model.slots,
            serving.worker,
            heeds_cordon=True,
        )
        if self._handing_over is not None:
            self._handing_over.add(name, lambda idle: backend.kept(idle=idle), serving.loop)
        await self._counting.add(name, backend)
        mesh.connection.on_disconnect(serving.loop.mark_unfresh)
        await serving.loop.start()

    def _worker(self, mesh: ServiceContext, serving: Serving, backend: Backend) -> BackendWorker:
        if self._handing_over is not None:
            return PrefixWorker(mesh, backend, self._handing_over, lambda: serving.model_sha256)
        return BackendWorker(
            mesh,
            backend,
            capabilities=lambda: backend.info.capabilities,
            model_sha256=lambda: serving.model_sha256,
        )

    async def _watch(self, mesh: ServiceContext) -> None:
        """Raises the failure of a model that has failed for good, which ends the process: whoever keeps it
        starts it anew."""
        while True:
            at_work = any(serving.loop is not None and serving.loop.busy for serving in self._all)
            await asyncio.sleep(WATCH_INTERVAL_S if at_work else IDLE_WATCH_INTERVAL_S)
            for serving in self._all:
                if serving.backend is None or serving.loop is None:
                    continue
                if (failure := serving.backend.failure()) is not None:
                    await self._break(mesh, serving, serving.loop, failure)
                    raise failure
                await serving.look_at_step(serving.loop, serving.backend.step_s())

    async def _break(
        self, mesh: ServiceContext, serving: Serving, loop: WorkLoop[Generate], failure: ChoirError
    ) -> None:
        """Tells that the model cannot be asked here, and lets others have its work."""
        log.critical("model has failed; this process ends", model=serving.model.name, why=failure.message)
        serving.problem, serving.loop = failure.body(), None
        await mesh.renew_lease()
        await loop.stop()

    async def _on_cancel(self, msg: Msg) -> None:
        request_id = subjects.request_of(msg.subject)
        for serving in self._all:
            if serving.worker is not None:
                serving.worker.cancel(request_id)
        if self._workers is not None:
            self._workers.cancel(request_id)

    async def _look_for_cancelled(self) -> None:
        """Cancellations were missed."""
        for serving in self._all:
            if serving.worker is not None:
                await serving.worker.look_for_cancelled()
        if self._workers is not None:
            await self._workers.look_for_cancelled()

    async def _resume(self) -> None:
        for serving in self._all:
            if serving.loop is not None:
                await serving.loop.resume()
        if self._workers is not None:
            await self._workers.resume()

    async def stop(self) -> None:
        """Finishes what is in work, then frees the models."""
        if self._watcher is not None:
            await ended([self._watcher])
        await self._endpoints.stop()
        if self._handing_over is not None:
            await self._handing_over.stop()
        if self._on_demand is not None:
            await self._on_demand.stop()
        loops = [serving.loop.stop() for serving in self._serving if serving.loop is not None]
        await asyncio.gather(*loops, *([self._workers.stop()] if self._workers is not None else []))
        for serving in self._serving:
            if serving.backend is not None:
                await serving.backend.close()

    def load(self) -> Load:
        """Broken only if it has models of its own, and not a single one can be served."""
        own = tuple(self._summary(serving) for serving in self._serving)
        demanded = () if self._on_demand is None else self._on_demand.summaries()
        models = (*own, *demanded, *(self._workers.summaries() if self._workers is not None else ()))
        usable = [model for model in models if model.problem is None]
        loaded = [one for one in usable if one.on_demand is None or one.on_demand.state == "loaded"]
        ready = bool(usable) or not own
        return Load(
            state="ready" if ready else "broken",
            slots=sum(model.slots for model in loaded),
            busy=sum(model.busy for model in loaded),
            models=models,
            problem=self._problem() if ready else own[0].problem,
            loads=None if self._on_demand is None else self._on_demand.offer,
            rests=self._cordon.holds,
        )

    def _summary(self, serving: Serving) -> ServedModel:
        summary = serving.summary(self._settings.backend)
        if self._handing_over is None or serving.loop is None:
            return summary
        return summary.model_copy(update={"prefixes": self._handing_over.told(serving.model.name)})

    def _problem(self) -> ErrorBody | None:
        return None if self._on_demand is None else self._on_demand.problem
