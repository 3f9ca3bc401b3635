"""An agent as a service: its models, a work loop for each that could be loaded, its workers and lease."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

import nats.errors
from nats.aio.msg import Msg

from schemas import subjects
from schemas.commands import Generate
from schemas.errors import ChoirError, ErrorBody
from schemas.nodes import ServedModel
from services.agent.backends import Backend, backend_opener
from services.agent.counting import Counting
from services.agent.keys import with_key
from services.agent.settings import AgentSection, ModelSection, WorkersSection
from services.agent.workers.host import WorkerHost
from services.chassis.cancelling import ended
from services.chassis.context import ServiceContext
from services.chassis.logs import get_logger
from services.chassis.nats.endpoints import Endpoints
from services.chassis.registry.lease import Load
from services.chassis.work.loop import WorkLoop
from services.tasks.generate import GenerateWorker

DESCRIPTION = "Generates answers with the models that it serves"
WATCH_INTERVAL_S = 0.25
STEP_PATIENCE_S = 5.0
"""A model whose present step takes longer is given nothing new until it is over: others may be faster."""

log = get_logger("agent")


@dataclass
class Serving:
    """One model of this agent: loaded and pulling, or with the problem that keeps it from it. One that is
    `held_up` has no free slot, whatever its work loop counts: its thread is in the midst of a long step."""

    model: ModelSection
    backend: Backend | None = None
    loop: WorkLoop[Generate] | None = None
    worker: GenerateWorker | None = None
    problem: ErrorBody | None = None
    held_up: bool = False

    async def look_at_step(self, loop: WorkLoop[Generate], step_s: float) -> None:
        """Takes no new work while a step is long."""
        if (step_s > STEP_PATIENCE_S) == self.held_up:
            return
        self.held_up = not self.held_up
        if self.held_up:
            log.warning("a step takes long", model=self.model.name, seconds=round(step_s, 1))
            loop.pause()
            return
        try:
            await loop.go_on()
        except nats.errors.Error as error:
            # The work loop asks again by itself, every second.
            log.warning("asks for work later", why=str(error) or type(error).__name__)

    def summary(self, backend_name: str) -> ServedModel:
        """What the lease says of it."""
        info = self.backend.info if self.backend else None
        busy = self.loop.busy if self.loop else 0
        return ServedModel(
            name=self.model.name,
            backend=backend_name,
            slots=self.model.slots if self.loop else 0,
            busy=self.model.slots if self.loop and self.held_up else busy,
            context_tokens=info.context_tokens if info else None,
            parameters=info.parameters if info else None,
            file=info.file if info else None,
            size_bytes=info.size_bytes if info else None,
            quantisation=info.quantisation if info else None,
            tokens_per_s=self.backend.tokens_per_s() if self.backend else None,
            description=info.description if info else None,
            capabilities=info.capabilities if info else (),
            problem=self.problem,
        )


class Agent:
    """Serves its models, and external workers. A model that cannot be loaded is said in the lease; the others
    go on."""

    def __init__(self, settings: AgentSection, workers: WorkersSection | None = None) -> None:
        self._settings = settings
        self._workers_section = workers or WorkersSection()
        self._workers: WorkerHost | None = None
        self._serving = [Serving(model) for model in settings.models]
        self._watcher: asyncio.Task[None] | None = None

    async def start(self, mesh: ServiceContext) -> None:
        """Loads the models and begins to pull."""
        self._endpoints = Endpoints(mesh.client, mesh.identity, DESCRIPTION)
        await self._endpoints.start()
        self._counting = Counting(self._endpoints)
        await asyncio.gather(*(self._load(serving) for serving in self._serving))
        await mesh.client.subscribe(subjects.ALL_CANCELS, cb=self._on_cancel)
        for serving in self._serving:
            if serving.backend is not None:
                await self._serve(mesh, serving, serving.backend)
        self._workers = WorkerHost(mesh, self._workers_section, self._counting)
        await self._workers.start()
        mesh.connection.on_reconnect(self._resume)
        mesh.connection.on_missed(subjects.ALL_CANCELS, self._look_for_cancelled)
        self._watcher = mesh.loops.start(self._watch(mesh), "watch over models")

    async def _load(self, serving: Serving) -> None:
        open_backend = backend_opener(self._settings.backend)
        try:
            model = with_key(serving.model, self._workers_section.keys)
            serving.backend = await open_backend(model, self._settings.threads)
        except ChoirError as error:
            log.error("model cannot be served", model=serving.model.name, why=error.message)
            serving.problem = error.body()

    async def _serve(self, mesh: ServiceContext, serving: Serving, backend: Backend) -> None:
        name = serving.model.name
        serving.worker = GenerateWorker(mesh, backend, capabilities=lambda: backend.info.capabilities)
        serving.loop = WorkLoop(
            mesh,
            Generate,
            subjects.COMMANDS_STREAM,
            [subjects.generate_consumer(priority, name) for priority in subjects.PRIORITIES],
            serving.model.slots,
            serving.worker,
        )
        await self._counting.add(name, backend)
        mesh.connection.on_disconnect(serving.loop.suspect)
        await serving.loop.start()

    async def _watch(self, mesh: ServiceContext) -> None:
        """Raises the failure of a model that has failed for good, which ends the process: whoever keeps it
        starts it anew."""
        while True:
            await asyncio.sleep(WATCH_INTERVAL_S)
            for serving in self._serving:
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
        await mesh.tell()
        await loop.stop()

    async def _on_cancel(self, msg: Msg) -> None:
        request_id = msg.subject.rsplit(".", 1)[-1]
        for serving in self._serving:
            if serving.worker is not None:
                serving.worker.cancel(request_id)
        if self._workers is not None:
            self._workers.cancel(request_id)

    async def _look_for_cancelled(self) -> None:
        """Cancellations were missed."""
        for serving in self._serving:
            if serving.worker is not None:
                await serving.worker.look_for_cancelled()
        if self._workers is not None:
            await self._workers.look_for_cancelled()

    async def _resume(self) -> None:
        for serving in self._serving:
            if serving.loop is not None:
                await serving.loop.resume()
        if self._workers is not None:
            await self._workers.resume()

    async def stop(self) -> None:
        """Finishes what is in work, then frees the models."""
        if self._watcher is not None:
            await ended([self._watcher])
        await self._endpoints.stop()
        loops = [serving.loop.stop() for serving in self._serving if serving.loop is not None]
        await asyncio.gather(*loops, *([self._workers.stop()] if self._workers is not None else []))
        for serving in self._serving:
            if serving.backend is not None:
                await serving.backend.close()

    def load(self) -> Load:
        """Broken only if it has models of its own, and not a single one can be served."""
        own = tuple(serving.summary(self._settings.backend) for serving in self._serving)
        models = (*own, *(self._workers.summaries() if self._workers is not None else ()))
        usable = [model for model in models if model.problem is None]
        ready = bool(usable) or not own
        return Load(
            state="ready" if ready else "broken",
            slots=sum(model.slots for model in usable),
            busy=sum(model.busy for model in usable),
            models=models,
            problem=None if ready else own[0].problem,
        )
