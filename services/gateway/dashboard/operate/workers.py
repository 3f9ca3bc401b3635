"""External workers: how they do, live; added with a test, cordoned, drained, removed."""

from __future__ import annotations

from functools import partial
from typing import Literal

from starlette.requests import Request
from starlette.responses import Response

from schemas.nodes.workers import WORKER_TYPES, ManageWorkers, WorkerId
from services.client.client import Choir
from services.client.request_builder import build
from services.gateway.dashboard.shell.forms import Form, told
from services.gateway.dashboard.shell.frame import Frame, done
from services.gateway.dashboard.shell.pages import fragment
from services.gateway.distributed.managing import Managing, NewWorker
from services.gateway.http.body import takes
from services.gateway.http.streaming import StreamedReply

LOOK_EVERY_S = 1.0
DONE = {
    "cordon": "{} gets nothing new; it finishes what it has",
    "uncordon": "{} gets work again",
    "remove": "{} is removed; it finishes what it has",
}


class WorkerChange(Form):
    """A worker, and what is to become of it."""

    id: WorkerId
    action: Literal["cordon", "uncordon", "remove"]


class WorkersPage:
    """Shows the workers, and changes them for those who may."""

    def __init__(self, frame: Frame) -> None:
        self._frame = frame
        self._managing = Managing(frame.context)

    async def page(self, _request: Request) -> Response:
        """All workers, and a form for another one."""
        parts = await _parts(self._frame.context.mesh)
        return self._frame.page(
            "operate/workers.html.j2", "workers", "/dashboard/live/workers", parts=parts, types=WORKER_TYPES
        )

    async def live(self, _request: Request) -> StreamedReply:
        """How they do."""
        mesh = self._frame.context.mesh

        async def look() -> dict[str, str]:
            return await _parts(mesh)

        return self._frame.live("workers", look, LOOK_EVERY_S, for_operators=True)

    @takes(NewWorker)
    async def add(self, request: Request) -> Response:
        """Registers a worker, and says what came of asking its server. Raises InvalidRequest."""
        body = await self._frame.said(request, NewWorker)
        status, tried = await self._managing.register(body)
        if status.problem is not None:
            words = f"{body.id} is registered, and does not work: {status.problem.message}"
        elif tried:
            words = f"{body.id} is registered: {status.held_by} has reached it"
        else:
            words = f"{body.id} is registered; no agent has tried it yet: does one have [workers] enabled?"
        return done(words)

    @takes(WorkerChange)
    async def change(self, request: Request) -> Response:
        """Cordons a worker, gives it work again, or takes it away. Raises UnknownWorker."""
        body = await self._frame.said(request, WorkerChange)
        await self._frame.context.mesh.workers(build(ManageWorkers, body.model_dump()))
        return done(DONE[body.action].format(body.id))


async def _parts(mesh: Choir) -> dict[str, str]:
    workers, problem = await told(partial(mesh.workers, ManageWorkers()), ())
    return {"workers": fragment("operate/workers_table.html.j2", workers=workers, problem=problem)}
