"""The handler of tasks whose beginnings are kept: it looks first whether another agent keeps more of one."""

from __future__ import annotations

from collections.abc import Callable

from schemas.commands import Generate
from services.agent.backends import Backend
from services.agent.prefixes.handing_over import HandingOver
from services.chassis.context import ServiceContext
from services.chassis.work.delivery import Delivery
from services.tasks.generate import BackendWorker, Generated, OnPiece


class PrefixWorker(BackendWorker):
    """Serves the model of a backend, and lets an agent have a task that keeps more of its beginning."""

    def __init__(
        self,
        mesh: ServiceContext,
        backend: Backend,
        handing_over: HandingOver,
        model_sha256: Callable[[], str | None],
    ) -> None:
        super().__init__(
            mesh, backend, capabilities=lambda: backend.info.capabilities, model_sha256=model_sha256
        )
        self._handing_over = handing_over

    async def is_elsewhere(self, command: Generate, delivery: Delivery) -> bool:
        """Whether another agent has the task now."""
        return await self._handing_over.is_elsewhere(command, delivery)

    async def generate(self, command: Generate, on_piece: OnPiece | None) -> Generated:
        """As any backend; what the prompt took is measured."""
        generated = await super().generate(command, on_piece)
        self._handing_over.note(command, generated)
        return generated
