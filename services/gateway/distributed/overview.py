"""What runs, and who serves what: the mesh's own messages as JSON, and figures for Prometheus."""

from __future__ import annotations

from collections.abc import Sequence

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from schemas.errors import ChoirError
from schemas.replies import StatusReply
from services.gateway.distributed.looking_back import LookingBack
from services.gateway.distributed.managing import Managing
from services.gateway.distributed.replies import json_reply
from services.gateway.http.context import GatewayContext
from services.gateway.http.figures import exposition

PROMETHEUS = "text/plain; version=0.0.4; charset=utf-8"


def routes(context: GatewayContext) -> Sequence[BaseRoute]:
    """All routes of this dialect."""
    overview = Overview(context)
    return (
        Route("/api/distributed/status", overview.status),
        Route("/api/distributed/nodes", overview.nodes),
        Route("/api/distributed/models", overview.models),
        *LookingBack(context).routes(),
        *Managing(context).routes(),
        Route("/metrics", overview.metrics),
    )


class Overview:
    """Looks at the mesh."""

    def __init__(self, context: GatewayContext) -> None:
        self._context = context

    async def status(self, _request: Request) -> Response:
        """The mesh at a glance."""
        return json_reply((await self._context.mesh.status()).model_dump(mode="json"))

    async def nodes(self, _request: Request) -> Response:
        """All live service instances, with their leases."""
        nodes = [node.model_dump(mode="json", exclude_none=True) for node in await self._context.mesh.nodes()]
        return json_reply({"nodes": nodes})

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
        return json_reply({"models": models, "ensembles": ensembles})

    async def metrics(self, _request: Request) -> Response:
        """The figures of this gateway and of the mesh. It answers also where the mesh does not."""
        status: StatusReply | None = None
        try:
            status = await self._context.mesh.status()
        except ChoirError as error:
            self._context.log_unreachable(error)
        return Response(exposition(self._context.figures, status), media_type=PROMETHEUS)
