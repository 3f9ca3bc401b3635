"""`POST /api/chat` and `POST /api/generate`"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from typing import Any, TypeVar

from starlette.requests import Request
from starlette.responses import Response

from schemas.commands import Ask
from services.client.request_builder import build
from services.gateway.http.body import checked, read_json, takes
from services.gateway.http.context import GatewayContext
from services.gateway.http.streaming import NDJSON, StreamedReply
from services.gateway.ollama.bodies import ChatBody, GenerateBody, GenerationBody, chat_ask, generate_ask
from services.gateway.ollama.generation import Lines, Shape, chat_shape, prompt_shape
from services.gateway.ollama.models.catalogue import is_loaded
from services.gateway.ollama.replies import error_line, json_reply, line, now
from services.gateway.requests.identity import ID_HEADER
from services.gateway.requests.models import Target

BodyT = TypeVar("BodyT", bound=GenerationBody)
MakeAsk = Callable[[GatewayContext, BodyT, Target, str], Ask]


class Generating:
    """Both ways to have a text generated."""

    def __init__(self, context: GatewayContext) -> None:
        self._context = context

    @takes(ChatBody)
    async def chat(self, request: Request) -> Response | StreamedReply:
        """The next turn of a conversation."""
        fields = await read_json(request, self._context.settings)
        body = checked(fields, ChatBody)
        return await self._reply(request, fields, body, not body.messages, chat_shape, chat_ask)

    @takes(GenerateBody)
    async def generate(self, request: Request) -> Response | StreamedReply:
        """A text that goes on."""
        fields = await read_json(request, self._context.settings)
        body = checked(fields, GenerateBody)
        nothing = not body.prompt and not body.images
        return await self._reply(request, fields, body, nothing, prompt_shape, generate_ask)

    async def _reply(
        self,
        request: Request,
        fields: dict[str, Any],
        body: BodyT,
        nothing_asked: bool,
        shape: Shape,
        make_ask: MakeAsk[BodyT],
    ) -> Response | StreamedReply:
        target = await self._context.models.find(body.named)
        request_id = await self._context.retries.id_of(request, fields)
        if nothing_asked:
            await self._load(body, target, request_id)
            return _loaded(body, shape)
        ask = await self._context.spared(make_ask(self._context, body, target, request_id), target)
        alternatives = (body.top_logprobs or 0) if body.logprobs else None
        with_members = target.ensemble is not None and bool(body.wanted_thoughts)
        lines = Lines(body.named, shape, logprobs=alternatives, with_members=with_members)
        headers = {ID_HEADER: request_id}
        if not body.streams:
            return json_reply(lines.whole(await self._context.result_of(ask)), headers=headers)
        return StreamedReply(
            self._frames(ask, lines),
            self._context.settings,
            media_type=NDJSON,
            heartbeat=lines.piece,
            on_error=error_line,
            headers=headers,
        )

    async def _load(self, body: BodyT, target: Target, request_id: str) -> None:
        """Has a model on demand loaded, or unloaded: by a request for one token, that says how long it stays.
        Any other is where its agent has it."""
        if target.ensemble is not None or target.members[0].on_demand is None:
            return
        if body.unloads:
            await self._context.models.all()  # how it is now, and not some seconds ago
            if not is_loaded(await self._context.models.find(body.named)):
                return
        fields = {
            "raw": {"text": "."},
            "sampling": {"max_tokens": 1},
            "request_id": request_id,
            "timeout_s": self._context.settings.timeout_s,
            "keep_alive_s": body.keep_alive_s,
            **target.ask_fields,
        }
        await self._context.result_of(build(Ask, fields), share=False)

    async def _frames(self, ask: Ask, lines: Lines) -> AsyncGenerator[bytes, None]:
        async with aclosing(self._context.follow(ask)) as replies, aclosing(lines.stream(replies)) as frames:
            async for frame in frames:
                yield frame


def _loaded(body: GenerationBody, shape: Shape) -> Response:
    """Nothing is asked, so the model is to be loaded, or unloaded."""
    reason = "unload" if body.unloads else "load"
    said = {
        "model": body.named,
        "created_at": now(),
        **shape("", "", ()),
        "done": True,
        "done_reason": reason,
    }
    return Response(line(said), media_type=NDJSON) if body.streams else json_reply(said)
