"""OpenAI's HTTP interface."""

from __future__ import annotations

from collections.abc import Sequence

from starlette.routing import BaseRoute, Route

from services.gateway.context import GatewayContext
from services.gateway.dialect import Dialect
from services.gateway.openai.chat import Chat
from services.gateway.openai.error import error_response
from services.gateway.openai.models import Models


def _routes(context: GatewayContext) -> Sequence[BaseRoute]:
    chat, models = Chat(context), Models(context)
    return (
        Route("/v1/models", models.all),
        Route("/v1/models/{model:path}", models.one),
        Route("/v1/chat/completions", chat.create, methods=["POST"]),
    )


OPENAI = Dialect("openai", "/v1", _routes, error_response)
