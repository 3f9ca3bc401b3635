"""What pages show of the mesh: looked at once a second while anybody watches, once for all who do."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator
from dataclasses import dataclass, field

from schemas.errors import ChoirError
from schemas.nodes import NodeLease
from schemas.pipelines import PipelineSummary
from schemas.replies import ModelSummary, StatusReply
from services.chassis.cancelling import ended
from services.chassis.logs import get_logger
from services.client.client import Choir

LOOK_EVERY_S = 1.0

log = get_logger("gateway.dashboard")


@dataclass(frozen=True)
class MeshView:
    """The mesh at one moment. With a `problem` it is what was seen last, at `seen_at_s` (Unix time)."""

    seen_at_s: float = 0.0
    status: StatusReply | None = None
    nodes: tuple[NodeLease, ...] = ()
    models: tuple[ModelSummary, ...] = ()
    pipelines: tuple[PipelineSummary, ...] = ()
    problem: str | None = None
    hosts: dict[str, tuple[NodeLease, ...]] = field(default_factory=dict)


async def look(mesh: Choir, before: MeshView) -> MeshView:
    """The mesh now; what was seen `before`, with the reason, if it does not answer."""
    try:
        nodes, offered, status = await asyncio.gather(mesh.nodes(), mesh.offered(), mesh.status())
    except ChoirError as error:
        return MeshView(
            before.seen_at_s, before.status, before.nodes, before.models, before.pipelines, error.message,
            before.hosts,
        )  # fmt: skip
    hosts: dict[str, list[NodeLease]] = {}
    for node in sorted(nodes, key=lambda node: (node.host, node.service, node.instance)):
        hosts.setdefault(node.host, []).append(node)
    grouped = {host: tuple(instances) for host, instances in hosts.items()}
    return MeshView(time.time(), status, nodes, offered.models, offered.pipelines, None, grouped)


class MeshWatch:
    """Looks while somebody watches. It asks in the name of one tenant: watchers share what that one sees."""

    def __init__(self, mesh: Choir) -> None:
        self._mesh = mesh
        self._watchers = 0
        self._looking: asyncio.Task[None] | None = None
        self._changed = asyncio.Condition()
        self.view = MeshView()

    async def watch(self) -> AsyncGenerator[MeshView, None]:
        """The mesh as it is now, and again after each look, until the watcher closes this."""
        self._watchers += 1
        try:
            self.view = await look(self._mesh, self.view)
            yield self.view
            if self._looking is None:
                self._looking = asyncio.create_task(self._look_on(), name="dashboard watch")
            while True:
                async with self._changed:
                    await self._changed.wait()
                yield self.view
        finally:
            self._watchers -= 1
            if not self._watchers and self._looking is not None:
                looking, self._looking = self._looking, None
                await ended((looking,))

    async def _look_on(self) -> None:
        while True:
            await asyncio.sleep(LOOK_EVERY_S)
            try:
                self.view = await look(self._mesh, self.view)
            except Exception as error:
                log.exception("the mesh could not be looked at")
                self.view = MeshView(problem=f"{type(error).__name__} in the gateway")
            async with self._changed:
                self._changed.notify_all()
