"""Models in stages over nodes: planned with predicted figures, placed, watched, ended."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Iterable
from dataclasses import dataclass

from starlette.requests import Request
from starlette.responses import Response

from schemas.nodes.lease import NodeLease
from schemas.pipelines.plan import Shard
from services.client.client import Choir
from services.gateway.dashboard.shell.forms import told
from services.gateway.dashboard.shell.frame import Frame, done
from services.gateway.dashboard.shell.pages import fragment, layers
from services.gateway.distributed.managing import NewPipeline
from services.gateway.http.body import takes
from services.gateway.http.streaming import StreamedReply

LOOK_EVERY_S = 0.15
"""A stage that dies is to be seen within two seconds: the mesh itself takes 1.0 to 1.5 of them to notice."""
NODES_EVERY_S = 1.0


@dataclass(frozen=True)
class Node:
    """A stage service: what it could hold, and what it holds."""

    lease: NodeLease

    @property
    def models(self) -> tuple[str, ...]:
        """The models of which it can load any slice."""
        return tuple(model.name for model in self.lease.stage.models) if self.lease.stage else ()

    @property
    def holds(self) -> str:
        """Its stage, in words."""
        held = self.lease.stage.held if self.lease.stage else None
        if held is None:
            return "free, or stands by"
        return f"{held.model}, {layers(held.first_layer, held.end_layer)}" + (
            "" if held.ready else ", loading"
        )


class PipelinesPage:
    """Shows the pipelines, and changes them for those who may."""

    def __init__(self, frame: Frame) -> None:
        self._frame = frame

    async def page(self, _request: Request) -> Response:
        """All pipelines, the nodes that could hold stages, and a form for another one."""
        mesh = self._frame.context.mesh
        parts, nodes = await _parts(mesh, operates=self._frame.operates)
        models = sorted({model for node in nodes for model in node.models})
        return self._frame.page(
            "operate/pipelines.html.j2",
            "pipelines",
            "/dashboard/live/pipelines",
            parts=parts,
            models=models,
            nodes=nodes,
        )

    async def live(self, _request: Request) -> StreamedReply:
        """How they do: loading, ready, a stage that is gone, another in its place."""
        mesh, operates = self._frame.context.mesh, self._frame.operates
        shown: dict[str, str] = {}
        nodes_at_s = -math.inf

        async def look() -> dict[str, str]:
            nonlocal nodes_at_s
            due = time.monotonic() >= nodes_at_s + NODES_EVERY_S
            if due:
                nodes_at_s = time.monotonic()
                shown.update((await _parts(mesh, operates=operates))[0])
            else:
                shown.update(await _pipelines(mesh, operates=operates))
            return shown

        return self._frame.live(("pipelines", operates), look, LOOK_EVERY_S)

    @takes(NewPipeline)
    async def plan(self, request: Request) -> Response:
        """What the planner would do, with its figures; nothing is done. Raises what a refusal is."""
        shard = await self._shard_request(request)
        reply = await self._frame.context.mesh.shard(shard.model_copy(update={"plan_only": True}))
        html = fragment("operate/plan.html.j2", plan=reply.plan, summary=reply.summary)
        return done("planned; nothing has been done yet", html=html)

    @takes(NewPipeline)
    async def place(self, request: Request) -> Response:
        """Has a model placed, or its pipeline ended."""
        reply = await self._frame.context.mesh.shard(await self._shard_request(request))
        return done(reply.summary)

    async def _shard_request(self, request: Request) -> Shard:
        body = await self._frame.said(request, NewPipeline)
        return Shard.model_validate(body.model_dump())


def stage_nodes(leases: Iterable[NodeLease]) -> tuple[Node, ...]:
    """The stage services among all instances."""
    return tuple(Node(lease) for lease in leases if lease.stage is not None)


async def _parts(mesh: Choir, *, operates: bool) -> tuple[dict[str, str], tuple[Node, ...]]:
    """The fragments of the page, and the stage services that are there."""
    pipelines, (leases, problem) = await asyncio.gather(
        _pipelines(mesh, operates=operates), told(mesh.nodes, ())
    )
    nodes = stage_nodes(leases)
    html = fragment("operate/stage_nodes.html.j2", nodes=nodes, problem=problem)
    return {**pipelines, "nodes": html}, nodes


async def _pipelines(mesh: Choir, *, operates: bool) -> dict[str, str]:
    pipelines, problem = await told(mesh.pipelines, ())
    html = fragment("operate/pipelines_list.html.j2", pipelines=pipelines, problem=problem, operates=operates)
    return {"pipelines": html}
