"""`POST /v1/messages` and `POST /v1/messages/count_tokens`"""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any

from pydantic import ValidationError
from pydantic_core import to_json
from starlette.requests import Request
from starlette.responses import Response

from schemas.commands import Ask, Tokenize
from schemas.errors import InvalidRequest
from services.chassis.plain_words import first_fault
from services.gateway.anthropic.body import CountBody, MessagesBody, messages_ask
from services.gateway.anthropic.error import error_object
from services.gateway.anthropic.events import PING, message_events
from services.gateway.anthropic.message import message
from services.gateway.http.body import checked, read_json, takes
from services.gateway.http.context import GatewayContext
from services.gateway.http.streaming import SSE, StreamedReply
from services.gateway.openai.replying import sse
from services.gateway.requests.identity import ID_HEADER

OWN_ID_HEADER = "request-id"


class Messages:
    """Messages, and how many tokens they take."""

    def __init__(self, context: GatewayContext) -> None:
        self._context = context

    @takes(MessagesBody)
    async def create(self, request: Request) -> Response | StreamedReply:
        """One message, whole or as a stream."""
        fields = await read_json(request, self._context.settings)
        body = checked(fields, MessagesBody)
        target = await self._context.models.find(body.model)
        request_id = await self._context.retries.id_of(request, fields)
        ask = messages_ask(body, target, request_id, self._context.settings.timeout_s)
        ask = await self._context.spared(ask, target)
        headers = {ID_HEADER: request_id, OWN_ID_HEADER: request_id}
        if body.stream:
            return StreamedReply(
                self._frames(body, ask, request_id),
                self._context.settings,
                media_type=SSE,
                heartbeat=lambda: PING,
                on_error=lambda error: sse.named_event("error", error_object(error)),
                headers=headers,
            )
        return _json(message(body, request_id, await self._context.result_of(ask)), headers)

    async def _frames(self, body: MessagesBody, ask: Ask, request_id: str) -> AsyncGenerator[bytes, None]:
        async with aclosing(self._context.follow(ask)) as replies:
            async for frame in message_events(body, request_id, replies):
                yield frame

    @takes(CountBody)
    async def count_tokens(self, request: Request) -> Response:
        """How many tokens a prompt has: of an ensemble, what its members have to read together."""
        body = checked(await read_json(request, self._context.settings), CountBody)
        target = await self._context.models.find(body.model)
        fields = {"messages": body.turns, "tools": body.tool_fields}
        counts = [await self._count(member.name, fields) for member in target.members]
        return _json({"input_tokens": sum(counts)}, {})

    async def _count(self, model: str, fields: dict[str, Any]) -> int:
        try:
            asked = Tokenize.model_validate({"model": model, **fields})
        except ValidationError as error:
            field, what = first_fault(error, whole="messages")
            raise InvalidRequest(f"{field}: {what}", field=field) from error
        told = await self._context.mesh.tokenize(asked)
        return len(told.tokens or ())


def _json(value: dict[str, Any], headers: dict[str, str]) -> Response:
    return Response(to_json(value), media_type="application/json", headers=headers)
