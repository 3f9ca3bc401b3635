"""Anthropic's HTTP interface."""

from __future__ import annotations

from collections.abc import Sequence

from starlette.routing import BaseRoute, Route

from services.gateway.anthropic.error import error_response
from services.gateway.anthropic.messages import Messages
from services.gateway.http.context import GatewayContext
from services.gateway.http.dialect import Dialect

PATH = "/v1/messages"


def _routes(context: GatewayContext) -> Sequence[BaseRoute]:
    messages = Messages(context)
    return (
        Route(PATH, messages.create, methods=["POST"]),
        Route(f"{PATH}/count_tokens", messages.count_tokens, methods=["POST"]),
    )


ANTHROPIC = Dialect("anthropic", PATH, _routes, error_response)
