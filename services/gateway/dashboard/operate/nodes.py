"""Hosts, their agents and stage services: how they do, live; cordoned, drained, let in again."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Literal

from starlette.requests import Request
from starlette.responses import Response

from schemas.message import Name
from schemas.nodes.cordons import Cordon, HostLabel, ManageCordons
from schemas.nodes.lease import NodeLease
from services.client.client import Choir
from services.client.request_builder import build
from services.gateway.dashboard.shell.forms import Form, told
from services.gateway.dashboard.shell.frame import Frame, done
from services.gateway.dashboard.shell.pages import fragment
from services.gateway.http.body import takes
from services.gateway.http.streaming import StreamedReply

LOOK_EVERY_S = 1.0
DONE = {
    "cordon": "{} gets nothing new; it finishes what it has",
    "drain": "{} is being drained: it finishes what it has, and others take its stages",
    "uncordon": "{} gets work again",
}


class NodeChange(Form):
    """A host or an instance, and what is to become of it."""

    host: HostLabel | None = None
    instance: Name | None = None
    action: Literal["cordon", "drain", "uncordon"]


@dataclass(frozen=True)
class HostRow:
    """A host with its agents and stage services, and the cordon around it."""

    name: str
    nodes: tuple[NodeLease, ...] = ()
    cordon: Cordon | None = None

    @property
    def drained(self) -> bool:
        """Whether nothing is in work there any more."""
        return self.cordon is not None and all(node.drained for node in self.nodes)


class NodesPage:
    """Shows the hosts, and takes them out of work for those who may."""

    def __init__(self, frame: Frame) -> None:
        self._frame = frame

    async def page(self, _request: Request) -> Response:
        """All hosts that generate."""
        parts = await _parts(self._frame.context.mesh, operates=self._frame.operates)
        return self._frame.page("nodes/page.html.j2", "nodes", "/dashboard/live/nodes", parts=parts)

    async def live(self, _request: Request) -> StreamedReply:
        """How they do."""
        mesh, operates = self._frame.context.mesh, self._frame.operates

        async def look() -> dict[str, str]:
            return await _parts(mesh, operates=operates)

        return self._frame.live(("nodes", operates), look, LOOK_EVERY_S)

    @takes(NodeChange)
    async def change(self, request: Request) -> Response:
        """Takes a host or an instance out of work, or lets it in again. Raises InvalidRequest."""
        body = await self._frame.said(request, NodeChange)
        await self._frame.context.mesh.cordons(build(ManageCordons, body.model_dump()))
        return done(DONE[body.action].format(body.host or body.instance))


def host_rows(nodes: Sequence[NodeLease], cordons: Sequence[Cordon]) -> tuple[HostRow, ...]:
    """The hosts that generate, and those that are cordoned and away; in the order of their names."""
    working = [node for node in nodes if node.service == "agent" or node.stage is not None]
    around = {cordon.host: cordon for cordon in cordons if cordon.host is not None}
    names = sorted({node.host for node in working} | set(around))
    return tuple(
        HostRow(name, tuple(node for node in working if node.host == name), around.get(name))
        for name in names
    )


async def _parts(mesh: Choir, *, operates: bool) -> dict[str, str]:
    nodes, problem = await told(mesh.nodes, ())
    cordons: tuple[Cordon, ...] = ()
    if operates and problem is None:
        cordons, problem = await told(partial(mesh.cordons, ManageCordons()), ())
    own = {cordon.instance: cordon for cordon in cordons if cordon.instance is not None}
    away = [name for name in own if all(node.instance != name for node in nodes)]
    hosts = host_rows(nodes, cordons)
    html = fragment(
        "nodes/hosts.html.j2", hosts=hosts, own=own, away=away, problem=problem, operates=operates
    )
    return {"nodes": html}
