"""`GET /v1/models` and `GET /v1/models/{model}`: models and ensembles alike."""

from __future__ import annotations

import time
from typing import Any

from pydantic_core import to_json
from starlette.requests import Request
from starlette.responses import Response

from services.gateway.http.context import GatewayContext
from services.gateway.requests.models import Target

OWNER = "choir"


class Models:
    """The models that can be named."""

    def __init__(self, context: GatewayContext) -> None:
        self._context = context

    async def all(self, request: Request) -> Response:
        """All of them."""
        found = [_object(target) for target in await self._context.models.all()]
        return Response(to_json({"object": "list", "data": found}), media_type="application/json")

    async def one(self, request: Request) -> Response:
        """One of them. Raises UnknownModel."""
        target = await self._context.models.find(request.path_params["model"])
        return Response(to_json(_object(target)), media_type="application/json")


def _object(target: Target) -> dict[str, Any]:
    fields = {"id": target.plain_name, "object": "model", "created": int(time.time()), "owned_by": OWNER}
    if target.context_tokens is not None:
        fields["max_model_len"] = target.context_tokens
    return fields
