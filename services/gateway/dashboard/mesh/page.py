"""The mesh on one page: hosts, services, models, pipelines, and what is wrong."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import Response

from services.gateway.dashboard.mesh.advice import advised
from services.gateway.dashboard.mesh.map import BAR, BROKER, GAP, drawing_of
from services.gateway.dashboard.mesh.view import MeshView, look
from services.gateway.dashboard.shell.frame import Frame
from services.gateway.dashboard.shell.pages import fragment
from services.gateway.http.streaming import StreamedReply

LOOK_EVERY_S = 1.0
PARTS = ("state", "hosts", "models", "pipelines")
"""The elements of the page that change, with the map and what is wrong."""


class MeshPage:
    """Shows the mesh, and keeps showing it."""

    def __init__(self, frame: Frame) -> None:
        self._frame = frame

    async def page(self, _request: Request) -> Response:
        """The page as the mesh is now."""
        view = await look(self._frame.context.mesh, MeshView())
        return self._frame.page("mesh/page.html.j2", "mesh", "/dashboard/live/mesh", parts=parts_of(view))

    async def live(self, _request: Request) -> StreamedReply:
        """What of it changes."""
        mesh, seen = self._frame.context.mesh, MeshView()

        async def parts() -> dict[str, str]:
            nonlocal seen
            seen = await look(mesh, seen)
            return parts_of(seen)

        return self._frame.live("mesh", parts, LOOK_EVERY_S)


def parts_of(view: MeshView) -> dict[str, str]:
    """The fragments of the page, by the ids of their elements."""
    drawing = fragment("mesh/map.html.j2", map=drawing_of(view), gap=GAP, broker=BROKER, bar=BAR)
    problems = fragment("mesh/problems.html.j2", view=view, problems=advised(view))
    return {
        "map": drawing,
        "problems": problems,
        **{part: fragment(f"mesh/{part}.html.j2", view=view) for part in PARTS},
    }
