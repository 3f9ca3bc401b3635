"""The mesh on one page: hosts, services, models, pipelines, and what is wrong."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing

from starlette.requests import Request
from starlette.responses import Response

from services.gateway.context import GatewayContext
from services.gateway.dashboard.live import changes, failed, heartbeat
from services.gateway.dashboard.mesh_watch import MeshView, MeshWatch, look
from services.gateway.dashboard.pages import fragment, page
from services.gateway.streaming import SSE, StreamedReply

PARTS = ("state", "hosts", "models", "pipelines", "problems")
"""The elements of the page that change."""


class MeshPage:
    """Shows the mesh, and keeps showing it."""

    def __init__(self, context: GatewayContext) -> None:
        self._context = context
        self._watches: dict[str, MeshWatch] = {}

    async def page(self, _request: Request) -> Response:
        """The page as the mesh is now."""
        view = await look(self._context.mesh, MeshView())
        return page("mesh.html.j2", parts=parts_of(view), active="mesh", live="/dashboard/live/mesh")

    async def live(self, _request: Request) -> StreamedReply:
        """What of it changes."""
        return StreamedReply(
            changes(self._parts()),
            self._context.settings,
            media_type=SSE,
            heartbeat=heartbeat,
            on_error=failed,
        )

    async def _parts(self) -> AsyncGenerator[dict[str, str], None]:
        watch = self._watches.setdefault(self._context.tenant, MeshWatch(self._context.mesh))
        async with aclosing(watch.watch()) as views:
            async for view in views:
                yield parts_of(view)


def parts_of(view: MeshView) -> dict[str, str]:
    """The fragments of the page, by the ids of their elements."""
    return {part: fragment(f"mesh_{part}.html.j2", view=view) for part in PARTS}
