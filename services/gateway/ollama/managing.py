"""The paths about models: lists, details, and what would change them."""

from __future__ import annotations

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import PlainTextResponse, RedirectResponse, Response

from services.gateway.http.body import checked, read_json, takes
from services.gateway.http.context import GatewayContext
from services.gateway.http.streaming import NDJSON
from services.gateway.ollama import catalogue
from services.gateway.ollama.bodies import NamedBody
from services.gateway.ollama.replies import json_reply, line

VERSION = "0.13.3"
"""Of Ollama's interface, in digits and dots: clients compare it as numbers."""

NOT_IMPLEMENTED = 501
HOW_TO_SERVE = "name it in choir.toml, section [[agents]], or register its server with `choir worker add`"


class PullBody(NamedBody):
    """`POST /api/pull`"""

    stream: bool | None = None


class CopyBody(NamedBody):
    """`POST /api/copy`"""

    source: str | None = None
    destination: str | None = None


class Managing:
    """What is known of models, and why clients cannot change them."""

    def __init__(self, context: GatewayContext) -> None:
        self._context = context

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
    async def pull(self, request: Request) -> Response:
        """Nothing is to be done for a model that is there."""
        body = checked(await read_json(request, self._context.settings), PullBody)
        target = await self._context.models.find(body.named, missing=_not_pulled)
        success = {"status": "success"}
        if body.stream is False:
            return json_reply(success)
        status = {"status": f"{target.plain_name} is served by this mesh"}
        return Response(line(status) + line(success), media_type=NDJSON)

    @takes(CopyBody)
    async def copy(self, request: Request) -> Response:
        """Refused: a model has the name that its agents give it."""
        body = checked(await read_json(request, self._context.settings), CopyBody)
        await self._context.models.find(body.source or body.named)
        raise HTTPException(NOT_IMPLEMENTED, f"models are not renamed from here: {HOW_TO_SERVE}")

    @takes(NamedBody)
    async def delete(self, request: Request) -> Response:
        """Refused: whoever serves a model decides that."""
        body = checked(await read_json(request, self._context.settings), NamedBody)
        await self._context.models.find(body.named)
        raise HTTPException(
            NOT_IMPLEMENTED, "models are not deleted from here: take them out of choir.toml on their host"
        )

    async def create(self, _request: Request) -> Response:
        """Refused, as is every upload; so is the question who the user is, by which `ollama push` begins."""
        raise HTTPException(NOT_IMPLEMENTED, f"models are not made or sent from here: {HOW_TO_SERVE}")


def _not_pulled(name: str) -> HTTPException:
    return HTTPException(NOT_IMPLEMENTED, f"model '{name}' is not in this mesh: {HOW_TO_SERVE}")
