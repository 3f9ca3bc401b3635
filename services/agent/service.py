"""An agent as a service: its models, a work loop for each that could be loaded, its workers and lease."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

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
from services.chassis.endpoints import Endpoints
from services.chassis.generate_worker import GenerateWorker
from services.chassis.lease import Load
from services.chassis.logs import get_logger
from services.chassis.service import Mesh
from services.chassis.work_loop import WorkLoop

DESCRIPTION = "Generates answers with the models that it serves"

log = get_logger("agent")


@dataclass
class Serving:
    """One model of this agent: loaded and pulling, or with the problem that keeps it from it."""

    model: ModelSection
    backend: Backend | None = None
    loop: WorkLoop[Generate] | None = None
    worker: GenerateWorker | None = None
    problem: ErrorBody | None = None

    def summary(self, backend_name: str) -> ServedModel:
        """What the lease says of it."""
        info = self.backend.info if self.backend else None
        return ServedModel(
            name=self.model.name,
            backend=backend_name,
            slots=self.model.slots if self.loop else 0,
            busy=self.loop.busy if self.loop else 0,
            context_tokens=info.context_tokens if info else None,
            parameters=info.parameters if info else None,
            file=info.file if info else None,
            size_bytes=info.size_bytes if info else None,
            quantisation=info.quantisation if info else None,
            tokens_per_s=self.backend.tokens_per_s() if self.backend else None,
            description=info.description if info else None,
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

    async def start(self, mesh: Mesh) -> None:
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

    async def _load(self, serving: Serving) -> None:
        open_backend = backend_opener(self._settings.backend)
        try:
            model = with_key(serving.model, self._workers_section.keys)
            serving.backend = await open_backend(model, self._settings.threads)
        except ChoirError as error:
            log.error("model cannot be served", model=serving.model.name, why=error.message)
            serving.problem = error.body()

    async def _serve(self, mesh: Mesh, serving: Serving, backend: Backend) -> None:
        name = serving.model.name
        serving.worker = GenerateWorker(mesh, backend)
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

    async def _on_cancel(self, msg: Msg) -> None:
        request_id = msg.subject.rsplit(".", 1)[-1]
        for serving in self._serving:
            if serving.worker is not None:
                serving.worker.cancel(request_id)
        if self._workers is not None:
            self._workers.cancel(request_id)

    async def _resume(self) -> None:
        for serving in self._serving:
            if serving.loop is not None:
                await serving.loop.resume()
        if self._workers is not None:
            await self._workers.resume()

    async def stop(self) -> None:
        """Finishes what is in work, then frees the models."""
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
