"""One model of an agent: its backend, its work loop, and what the lease says of it."""

from __future__ import annotations

from dataclasses import dataclass

import nats.errors

from schemas.commands import Generate
from schemas.errors import ErrorBody
from schemas.nodes.lease import ServedModel
from services.agent.backends import Backend
from services.agent.backends.backend import BackendInfo
from services.agent.file_hash import FileHash
from services.agent.settings import ModelSection
from services.chassis.logs import get_logger
from services.chassis.work.loop import WorkLoop
from services.tasks.generate import BackendWorker

STEP_PATIENCE_S = 5.0
"""A model whose present step takes longer is given nothing new until it is over: others may be faster."""

log = get_logger("agent")


@dataclass
class Serving:
    """One model of this agent: loaded and pulling, or with the problem that keeps it from it. One that is
    `held_up` has no free slot, whatever its work loop counts: its thread is in the midst of a long step.
    `info` is what is known of one that is not loaded; `file_hash` of one that is, as far as it has a file."""

    model: ModelSection
    backend: Backend | None = None
    loop: WorkLoop[Generate] | None = None
    worker: BackendWorker | None = None
    problem: ErrorBody | None = None
    held_up: bool = False
    info: BackendInfo | None = None
    file_hash: FileHash | None = None

    @property
    def model_sha256(self) -> str | None:
        """That of its file, as soon as all of it was read."""
        return None if self.file_hash is None else self.file_hash.sha256

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
            await loop.unpause()
        except nats.errors.Error as error:
            # The work loop asks again by itself, every second.
            log.warning("asks for work later", why=str(error) or type(error).__name__)

    def summary(self, backend_name: str) -> ServedModel:
        """What the lease says of it."""
        info = self.backend.info if self.backend else self.info
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
            identity=info.identity if info else None,
        )
