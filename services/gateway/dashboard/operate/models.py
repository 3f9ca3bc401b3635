"""Models that the mesh keeps: fetched with their progress, copied, removed; and what is loaded where, loaded
and unloaded."""

from __future__ import annotations

import asyncio
from functools import partial
from typing import Annotated, Literal

from pydantic import Field
from starlette.requests import Request
from starlette.responses import Response

from schemas.commands import KeepAlive
from schemas.message import Name
from schemas.nodes.lease import NodeLease
from schemas.nodes.loading import ManageLoaded
from schemas.nodes.model_store import MAX_COPIES, ManageStore, StoreReply, Text
from services.client.client import Choir
from services.client.request_builder import build
from services.gateway.dashboard.shell.forms import Form, told
from services.gateway.dashboard.shell.frame import Frame, done
from services.gateway.dashboard.shell.pages import fragment
from services.gateway.http.body import takes
from services.gateway.http.streaming import StreamedReply

LOOK_EVERY_S = 1.0
STORE_SERVICE = "modelstore"
DONE = {
    "pull": "{name} is being fetched to {store}; how far it is stands above",
    "add": "{path} is being added; how far it is stands above",
    "remove": "{name} is removed from {store}",
    "everywhere": "{name} is given up: no store has it any more",
    "copies": "{name} is to be on at least {min_copies} hosts",
    "cancel": "{job} is cancelled; what it has fetched stays for the next time",
}
Copies = Annotated[int, Field(ge=1, le=MAX_COPIES)]


class StoreChange(Form):
    """What a store is to do: `remove` with `everywhere` has all of them forget a model."""

    action: Literal["pull", "add", "remove", "everywhere", "copies", "cancel"]
    store: str | None = None
    name: Text | None = None
    path: Text | None = None
    job: Name | None = None
    min_copies: Copies | None = None
    max_copies: Copies | None = None


class LoadChange(Form):
    """A model on demand that is to be loaded, or unloaded, at one agent."""

    action: Literal["load", "unload"]
    model: Name
    instance: Name | None = None
    keep_alive_s: KeepAlive | None = None


class ModelsPage:
    """Shows what is kept and what is loaded, and changes both."""

    def __init__(self, frame: Frame) -> None:
        self._frame = frame

    async def page(self, _request: Request) -> Response:
        """All models of the store, its jobs and its room, what agents have loaded, and forms for more."""
        return self._frame.page(
            "models/page.html.j2",
            "models",
            "/dashboard/live/models",
            parts=await _parts(self._frame.context.mesh),
        )

    async def live(self, _request: Request) -> StreamedReply:
        """How far the jobs are, and what has changed."""
        mesh = self._frame.context.mesh

        async def look() -> dict[str, str]:
            return await _parts(mesh)

        return self._frame.live("models", look, LOOK_EVERY_S, for_operators=True)

    @takes(StoreChange)
    async def change(self, request: Request) -> Response:
        """Has a store do something. Raises UnknownModel, and InvalidRequest with the field that is wrong."""
        body = await self._frame.said(request, StoreChange)
        fields = body.model_dump()
        if body.action == "everywhere":
            fields |= {"action": "remove", "everywhere": True}
        await self._frame.context.mesh.store(build(ManageStore, fields))
        return done(DONE[body.action].format(**{**fields, "store": body.store or "a store"}))

    @takes(LoadChange)
    async def load(self, request: Request) -> Response:
        """Has an agent load a model, or unload it. Raises UnknownModel, InvalidRequest for one that is not on
        demand, and with both numbers ModelUnusable and NoRoom."""
        body = await self._frame.said(request, LoadChange)
        kept = {} if body.action == "unload" else {"keep_alive_s": body.keep_alive_s}
        fields = {**body.model_dump(exclude={"keep_alive_s"}), **kept}
        agents = await self._frame.context.mesh.load(build(ManageLoaded, fields))
        return done(f"{body.model} is {'; '.join(one.words for one in agents) or 'loaded nowhere'}")


async def _parts(mesh: Choir) -> dict[str, str]:
    nodes, silence = await told(mesh.nodes, ())
    stores = sorted({node.host for node in nodes if node.service == STORE_SERVICE})
    kept, jobs, problem = StoreReply(), StoreReply(), None
    if stores:  # where there is none, nobody need be waited for
        (kept, problem), (jobs, unknown) = await asyncio.gather(
            told(partial(mesh.store, ManageStore()), kept),
            told(partial(mesh.store, ManageStore(action="jobs")), jobs),
        )
        problem = problem or unknown
    return {
        "kept": fragment("models/kept.html.j2", kept=kept, stores=stores, problem=problem),
        "jobs": fragment("models/jobs.html.j2", jobs=jobs.jobs, spaces=jobs.spaces),
        "fetch": fragment("models/fetch.html.j2", stores=stores),
        "loaded": fragment("models/loaded.html.j2", nodes=loading(nodes), problem=silence),
    }


def loading(nodes: tuple[NodeLease, ...]) -> list[NodeLease]:
    """The instances that have models of their own in memory, or a part of one."""
    return [node for node in nodes if any(model.worker is None for model in node.models) or node.stage]
