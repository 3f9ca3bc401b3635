"""What runs, who serves what, what became of a request: the mesh's own messages as JSON."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from pydantic_core import to_json
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from schemas.errors import ChoirError
from schemas.replies import StatusReply
from services.gateway.distributed.managing import Managing
from services.gateway.http.context import GatewayContext
from services.gateway.http.figures import exposition
from services.gateway.requests.found_results import result_under

JSON = "application/json"
PROMETHEUS = "text/plain; version=0.0.4; charset=utf-8"


def error_reply(status: int, error: ChoirError) -> Response:
    """The error as the mesh has it: its code, its message, the field."""
    return _json({"error": error.body().model_dump(exclude_none=True)}, status)


def routes(context: GatewayContext) -> Sequence[BaseRoute]:
    """All routes of this dialect."""
    overview = Overview(context)
    return (
        Route("/api/distributed/status", overview.status),
        Route("/api/distributed/nodes", overview.nodes),
        Route("/api/distributed/models", overview.models),
        Route("/api/distributed/requests/{request_id}", overview.request),
        *Managing(context).routes(),
        Route("/metrics", overview.metrics),
    )


class Overview:
    """Looks at the mesh."""

    def __init__(self, context: GatewayContext) -> None:
        self._context = context

    async def status(self, _request: Request) -> Response:
        """The mesh at a glance."""
        return _json((await self._context.mesh.status()).model_dump(mode="json"))

    async def nodes(self, _request: Request) -> Response:
        """All live service instances, with their leases."""
        nodes = [node.model_dump(mode="json", exclude_none=True) for node in await self._context.mesh.nodes()]
        return _json({"nodes": nodes})

    async def models(self, _request: Request) -> Response:
        """All models, and all ensembles that can be named as one."""
        targets = await self._context.models.all()
        models = [target.members[0].model_dump(mode="json") for target in targets if target.ensemble is None]
        ensembles = [
            {
                "name": target.plain_name,
                "strategy": target.ensemble.strategy,
                "members": [member.name for member in target.members],
            }
            for target in targets
            if target.ensemble is not None
        ]
        return _json({"models": models, "ensembles": ensembles})

    async def request(self, request: Request) -> Response:
        """The result of a request: its answers, its votes, its times. 409 while there is none."""
        request_id = request.path_params["request_id"]
        result = await result_under(self._context.mesh, self._context.tenant, request_id)
        return _json(result.model_dump(mode="json", exclude_none=True))

    async def metrics(self, _request: Request) -> Response:
        """The figures of this gateway and of the mesh. It answers also where the mesh does not."""
        status: StatusReply | None = None
        try:
            status = await self._context.mesh.status()
        except ChoirError as error:
            self._context.log_unreachable(error)
        return Response(exposition(self._context.figures, status), media_type=PROMETHEUS)


def _json(fields: dict[str, Any], status: int = 200) -> Response:
    return Response(to_json(fields), status, media_type=JSON)
