"""An agent as a service: its models, a work loop for each that could be loaded, its lease."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from nats.aio.msg import Msg

from schemas import subjects
from schemas.commands import CountTokens, Generate
from schemas.errors import ChoirError, ErrorBody
from schemas.nodes import ServedModel
from services.agent.backends import Backend, backend_opener
from services.agent.settings import AgentSection, ModelSection
from services.chassis.endpoints import Caller, Endpoints
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
            size_bytes=info.size_bytes if info else None,
            tokens_per_s=self.backend.tokens_per_s() if self.backend else None,
            description=info.description if info else None,
            problem=self.problem,
        )


class Agent:
    """Serves one or more models. A model that cannot be loaded is said in the lease; the others go on."""

    def __init__(self, settings: AgentSection) -> None:
        self._settings = settings
        self._serving = [Serving(model) for model in settings.models]

    async def start(self, mesh: Mesh) -> None:
        """Loads the models and begins to pull."""
        self._endpoints = Endpoints(mesh.client, mesh.identity, DESCRIPTION)
        await self._endpoints.start()
        await asyncio.gather(*(self._load(serving) for serving in self._serving))
        await mesh.client.subscribe(subjects.ALL_CANCELS, cb=self._on_cancel)
        for serving in self._serving:
            if serving.backend is not None:
                await self._serve(mesh, serving, serving.backend)
        mesh.connection.on_reconnect(self._resume)

    async def _load(self, serving: Serving) -> None:
        open_backend = backend_opener(self._settings.backend)
        try:
            serving.backend = await open_backend(serving.model, self._settings.threads)
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

        async def count(request: CountTokens, caller: Caller) -> None:
            await caller.send(await backend.count_tokens(request.messages))

        await self._endpoints.add(subjects.count_tokens(name), CountTokens, count)
        mesh.connection.on_disconnect(serving.loop.suspect)
        await serving.loop.start()

    async def _on_cancel(self, msg: Msg) -> None:
        request_id = msg.subject.rsplit(".", 1)[-1]
        for serving in self._serving:
            if serving.worker is not None:
                serving.worker.cancel(request_id)

    async def _resume(self) -> None:
        for serving in self._serving:
            if serving.loop is not None:
                await serving.loop.resume()

    async def stop(self) -> None:
        """Finishes what is in work, then frees the models."""
        await self._endpoints.stop()
        await asyncio.gather(*(s.loop.stop() for s in self._serving if s.loop is not None))
        for serving in self._serving:
            if serving.backend is not None:
                await serving.backend.close()

    def load(self) -> Load:
        """Broken only if not a single model can be served."""
        models = tuple(serving.summary(self._settings.backend) for serving in self._serving)
        usable = [model for model in models if model.problem is None]
        return Load(
            state="ready" if usable else "broken",
            slots=sum(model.slots for model in usable),
            busy=sum(model.busy for model in usable),
            models=models,
            problem=None if usable else models[0].problem,
        )
