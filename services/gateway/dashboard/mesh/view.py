"""What pages show of the mesh, as it is at one moment."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass, field

from schemas.errors import ChoirError
from schemas.nodes.lease import NodeLease
from schemas.pipelines.plan import PipelineSummary
from schemas.replies import ModelSummary, StatusReply
from services.client.client import Choir


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
