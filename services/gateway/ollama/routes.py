"""The paths of Ollama's interface."""

from __future__ import annotations

from collections.abc import Sequence

from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import BaseRoute, Route

from services.gateway.context import GatewayContext

VERSION = "0.13.3"
"""Of Ollama's interface, in digits and dots: clients compare it as numbers."""


def routes(context: GatewayContext) -> Sequence[BaseRoute]:
    """All routes of this dialect."""

    async def root(_request: Request) -> Response:
        return PlainTextResponse("Ollama is running")

    async def version(_request: Request) -> Response:
        return JSONResponse({"version": VERSION})

    return [Route("/", root), Route("/api/version", version)]
