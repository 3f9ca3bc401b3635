"""`POST /v1/chat/completions`"""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator
from contextlib import aclosing

from pydantic_core import to_json
from starlette.requests import Request
from starlette.responses import Response

from schemas.commands import Ask
from services.gateway.http.body import checked, parse_object, read_body, takes
from services.gateway.http.context import GatewayContext
from services.gateway.http.streaming import SSE, StreamedReply
from services.gateway.openai.chat.body import ChatBody, chat_ask
from services.gateway.openai.chat.completion import completion
from services.gateway.openai.chat.ready_replies import JSON, ReadyReplies, ReadyReply
from services.gateway.openai.chat.stream import chat_events
from services.gateway.openai.replying import sse
from services.gateway.openai.replying.error import error_object
from services.gateway.openai.streams.place import Place, place_of
from services.gateway.requests.identity import ID_HEADER


class Chat:
    """Chat completions."""

    def __init__(self, context: GatewayContext) -> None:
        self._context = context
        self._ready = ReadyReplies(context)

    @takes(ChatBody)
    async def create(self, request: Request) -> Response | ReadyReply | StreamedReply:
        """One completion, whole or as a stream."""
        data = await read_body(request, self._context.settings)
        if (ready := await self._ready.reply(request, data)) is not None:
            return ready
        fields = parse_object(data)
        body = checked(fields, ChatBody)
        had = place_of(request)
        if body.background:
            self._context.check_background()
        target = await self._context.target_of(body.model, again=had is not None)
        request_id = await self._context.retries.id_of(request, fields) if had is None else had.request_id
        ask = chat_ask(body, target, request_id, self._context.settings.timeout_s)
        ask = await self._context.spared(ask, target)
        headers = {ID_HEADER: request_id}
        if body.stream:
            return event_stream(self._context, self._frames(body, ask, had), headers)
        result = await self._context.result_of(ask, background=bool(body.background))
        reply = to_json(completion(body, request_id, result))
        if target.ensemble is None:
            self._ready.keep(request, data, ask, reply)
        return Response(reply, media_type=JSON, headers=headers)

    async def _frames(self, body: ChatBody, ask: Ask, had: Place | None) -> AsyncGenerator[bytes, None]:
        request_id, now_s = ask.request_id or "", int(time.time())
        follow = self._context.follow if had is None else self._context.take_up
        async with aclosing(follow(ask, background=bool(body.background))) as replies:
            async for frame in chat_events(body, request_id, now_s, replies, had):
                yield frame


def event_stream(
    context: GatewayContext, frames: AsyncGenerator[bytes, None], headers: dict[str, str]
) -> StreamedReply:
    """A reply of server-sent events."""
    return StreamedReply(
        frames,
        context.settings,
        media_type=SSE,
        heartbeat=lambda: sse.KEEP_ALIVE,
        on_error=lambda error: sse.event(error_object(error)),
        headers=headers,
    )
