"""The paths about models: lists, details, and what changes them."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing, suppress
from typing import Any

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import PlainTextResponse, RedirectResponse, Response

from schemas.ensembles.kept import ManageEnsembles
from schemas.errors import InvalidRequest, UnknownModel
from services.client.request_builder import build
from services.gateway.http.body import checked, read_json, takes
from services.gateway.http.context import GatewayContext
from services.gateway.http.streaming import NDJSON, StreamedReply
from services.gateway.ollama.bodies import NamedBody
from services.gateway.ollama.models import catalogue
from services.gateway.ollama.models.stores import Progress, Stores
from services.gateway.ollama.replies import error_line, json_reply, line
from services.gateway.requests.ensembles import without_tag
from services.gateway.requests.hub_names import hub_name
from services.gateway.requests.models import Target

VERSION = "0.13.3"
"""Of Ollama's interface, in digits and dots: clients compare it as numbers."""

NOT_IMPLEMENTED = 501
SUCCESS: Progress = {"status": "success"}
HOW_TO_SERVE = "name it in choir.toml, section [[agents]], or register its server with `choir worker add`"
HOW_TO_STORE = "`[modelstore] enabled` in choir.toml has a host keep models"
HOW_TO_PULL = (
    f"{HOW_TO_SERVE}; from a hub a store fetches hf.co/ORGANISATION/REPOSITORY:QUANTISATION, and there is no "
    "way to Ollama's own library"
)


class PullBody(NamedBody):
    """`POST /api/pull`; `insecure` and credentials are passed over: the store knows its hub."""

    stream: bool | None = None


class DeleteBody(NamedBody):
    """`DELETE /api/delete`; `everywhere` is ours: all copies go, and with them the model."""

    everywhere: bool | None = None


class CopyBody(NamedBody):
    """`POST /api/copy`"""

    source: str | None = None
    destination: str | None = None


class Managing:
    """What is known of models, and what clients can have done about them."""

    def __init__(self, context: GatewayContext) -> None:
        self._context = context
        self._stores = Stores(lambda: context.mesh)

    async def root(self, request: Request) -> Response:
        """By these words clients know that a server is there; a browser is led to the dashboard."""
        if "text/html" in request.headers.get("accept", ""):
            return RedirectResponse("/dashboard", 303)
        return PlainTextResponse("Ollama is running")

    async def version(self, _request: Request) -> Response:
        """The version of the interface."""
        return json_reply({"version": VERSION})

    async def tags(self, _request: Request) -> Response:
        """All models, and all ensembles."""
        since_s = self._context.started_at_s
        targets = await self._context.models.all()
        return json_reply({"models": [catalogue.listed(target, since_s) for target in targets]})

    async def ps(self, _request: Request) -> Response:
        """The models that are loaded."""
        targets = await self._context.models.all()
        loaded = (each for each in targets if each.ensemble is None and catalogue.is_loaded(each))
        return json_reply({"models": [catalogue.running(each) for each in loaded]})

    @takes(NamedBody)
    async def show(self, request: Request) -> Response:
        """One model in detail."""
        body = checked(await read_json(request, self._context.settings), NamedBody)
        target = await self._context.models.find(body.named)
        return json_reply(catalogue.shown(target, self._context.started_at_s))

    @takes(PullBody)
    async def pull(self, request: Request) -> Response | StreamedReply:
        """Has a store fetch a model, from other hosts or from a hub. Nothing is to be done for one that is
        served already."""
        body = checked(await read_json(request, self._context.settings), PullBody)
        wanted = await self._wanted(body.named)
        if body.stream is False:
            async for _ in self._lines(body.named, wanted):
                pass
            return json_reply(SUCCESS)
        return StreamedReply(
            self._lines(body.named, wanted),
            self._context.settings,
            media_type=NDJSON,
            heartbeat=lambda: line({"status": "pulling manifest"}),
            on_error=error_line,
        )

    async def _wanted(self, name: str) -> str | None:
        """What a store is asked for; None for a model that is served, for which nothing is to be done."""
        hub = hub_name(name)
        if hub is not None:
            if not await self._stores.live():
                raise HTTPException(NOT_IMPLEMENTED, f"no store keeps models in this mesh: {HOW_TO_STORE}")
            return hub
        with suppress(UnknownModel):
            await self._context.models.find(name)
            return None
        if await self._stores.find(name) is None:
            raise HTTPException(
                NOT_IMPLEMENTED,
                f"model '{name}' is not in this mesh (`ollama list` says what is): {HOW_TO_PULL}",
            )
        return without_tag(name)

    async def _lines(self, name: str, wanted: str | None) -> AsyncGenerator[bytes, None]:
        if wanted is None:
            yield line({"status": f"{without_tag(name)} is served by this mesh"})
            yield line(SUCCESS)
            return
        async with aclosing(self._stores.pull(wanted)) as told:
            async for each in told:
                yield line(each)
        self._context.models.expire()
        yield line(SUCCESS)

    @takes(CopyBody)
    async def copy(self, request: Request) -> Response:
        """An ensemble gets a further name, which the mesh keeps; a model has the name that its agents give
        it."""
        body = checked(await read_json(request, self._context.settings), CopyBody)
        models = self._context.models
        target = await models.find(body.source or body.named)
        if not body.destination:
            raise InvalidRequest("destination: it is missing", field="destination")
        if target.ensemble is None:
            raise HTTPException(
                NOT_IMPLEMENTED,
                f"a model has the name that its agents give it, and no other one: {HOW_TO_SERVE}. "
                "An ensemble can be copied",
            )
        name = without_tag(body.destination)
        taken = [each.name for each in (await self._context.mesh.offered()).models]
        if name in taken:
            raise InvalidRequest(f"destination: there is a model {name} already", field="destination")
        copied = {**await self._ensemble(target), "name": name}
        await self._context.mesh.ensembles(build(ManageEnsembles, {"action": "add", "ensemble": copied}))
        await models.settle(name, there=True)
        return Response()

    async def _ensemble(self, target: Target) -> dict[str, Any]:
        """Whom it asks and how it decides."""
        named = (await self._context.mesh.offered()).ensembles
        found = next((each for each in named if each.name == target.plain_name), None)
        if found is not None:
            return found.model_dump(exclude_none=True)
        assert target.ensemble is not None
        return {"members": target.ensemble.members or (), "strategies": (target.ensemble.strategy,)}

    @takes(DeleteBody)
    async def delete(self, request: Request) -> Response:
        """A store gives its copy of a model up, if others are left; or operators' ensemble is forgotten."""
        body = checked(await read_json(request, self._context.settings), DeleteBody)
        entry, models = await self._stores.find(body.named), self._context.models
        if entry is not None:
            await self._stores.remove(entry, everywhere=bool(body.everywhere))
            return Response()
        target = await models.find(body.named)
        if target.ensemble is None or not target.ensemble.named:
            raise HTTPException(
                NOT_IMPLEMENTED,
                f"no store keeps {target.plain_name}, so none can give it up: take it out of choir.toml on "
                "its host, or `choir worker remove`"
                if target.ensemble is None
                else f"{target.plain_name} is there by itself: nobody made it, and nobody deletes it "
                "(see [[ensembles]] of choir.toml for those that have a name of their own)",
            )
        await self._forget(target.plain_name)
        await models.settle(target.plain_name, there=False)
        return Response()

    async def _forget(self, name: str) -> None:
        """Raises InvalidRequest for an ensemble that a choir.toml says."""
        kept = await self._context.mesh.ensembles(ManageEnsembles())
        words = [word for entry in kept if entry.ensemble.name == name for word in entry.words]
        hosts = ", ".join(host for word in words for host in word.hosts)
        if hosts:
            raise InvalidRequest(
                f"model: the choir.toml of {hosts} says {name}: take it out there, and `choir up` again",
                field="model",
            )
        await self._context.mesh.ensembles(build(ManageEnsembles, {"action": "remove", "name": name}))

    async def create(self, _request: Request) -> Response:
        """Refused, as is every upload; so is the question who the user is, by which `ollama push` begins."""
        raise HTTPException(NOT_IMPLEMENTED, f"models are not made or sent from here: {HOW_TO_SERVE}")
