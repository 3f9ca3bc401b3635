"""`POST /v1/completions`: prompts that a model goes on with as they stand, and given texts that it scores."""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator, Iterator, Sequence
from contextlib import aclosing
from typing import Any

from pydantic_core import to_json
from starlette.requests import Request
from starlette.responses import Response

from schemas.commands import Ask, Tokenize
from schemas.replies import Result
from services.gateway.http.body import checked, read_json, takes
from services.gateway.http.context import GatewayContext
from services.gateway.http.streaming import StreamedReply
from services.gateway.openai.asking.many import results_of
from services.gateway.openai.chat.endpoint import event_stream
from services.gateway.openai.completions.body import CompletionBody, completion_asks
from services.gateway.openai.completions.completion import PREFIX, choice_of, sum_of_usage, text_completion
from services.gateway.openai.replying import sse
from services.gateway.openai.replying.outcome import choices
from services.gateway.openai.streams.place import Place, place_of
from services.gateway.openai.streams.track import Track
from services.gateway.requests.identity import ID_HEADER
from services.gateway.requests.shown import Shown


class Completions:
    """Completions of raw prompts."""

    def __init__(self, context: GatewayContext) -> None:
        self._context = context

    @takes(CompletionBody)
    async def create(self, request: Request) -> Response | StreamedReply:
        """All texts of one request, whole or as a stream."""
        fields = await read_json(request, self._context.settings)
        body = checked({**fields, **request.path_params}, CompletionBody)
        had = place_of(request)
        if body.background:
            self._context.check_background()
        target = await self._context.target_of(body.model, again=had is not None)
        request_id = await self._context.retries.id_of(request, fields) if had is None else had.request_id
        asks = completion_asks(body, target, request_id, self._context.settings.timeout_s)
        headers = {ID_HEADER: request_id}
        if body.stream:
            return event_stream(self._context, self._frames(body, asks, request_id, had), headers)
        results = await results_of(self._context, asks, background=bool(body.background))
        answer = text_completion(body, request_id, results, await self._echoes(body, asks))
        return Response(to_json(answer), media_type="application/json", headers=headers)

    async def _echoes(self, body: CompletionBody, asks: Sequence[Ask]) -> list[str]:
        """What each text begins with: nothing, or its prompt; that of token ids is their text."""
        return [await self._text_of(ask) if body.echo else "" for ask in asks]

    async def _text_of(self, ask: Ask) -> str:
        assert ask.raw is not None and ask.model is not None
        if ask.raw.text is not None:
            return ask.raw.text
        told = await self._context.mesh.tokenize(Tokenize(model=ask.model, tokens=ask.raw.tokens))
        return told.text or ""

    async def _frames(
        self, body: CompletionBody, asks: Sequence[Ask], request_id: str, had: Place | None
    ) -> AsyncGenerator[bytes, None]:
        track, background = Track(request_id, had), bool(body.background)
        chunks = _Chunks(body, request_id, track)
        echoes = await self._echoes(body, asks)
        if not asks[0].stream:
            results = await results_of(self._context, asks, background=background)
            for frame in chunks.all(results, echoes):
                yield frame
            return
        shown = Shown()
        if echo := track.say(echoes[0]):
            yield chunks.text(echo)
        follow = self._context.follow if had is None else self._context.take_up
        async with aclosing(follow(asks[0], background=background)) as replies:
            async for reply in replies:
                if isinstance(reply, Result):
                    rest = shown.rest_of_text(choices(reply)[0].text)
                    for frame in chunks.end(reply, rest):
                        yield frame
                    return
                if text := track.say(shown.say(reply)):
                    yield chunks.text(text)


class _Chunks:
    """The events of one stream, each with its id."""

    def __init__(self, body: CompletionBody, request_id: str, track: Track) -> None:
        self._body = body
        self._track = track
        self._head = {
            "id": PREFIX + request_id,
            "object": "text_completion",
            "created": int(time.time()),
            "model": body.model,
        }

    def text(self, text: str) -> bytes:
        """A piece of the only text."""
        return self._event({"index": 0, "text": text, "logprobs": None, "finish_reason": None})

    def end(self, result: Result, rest: str) -> Iterator[bytes]:
        """What is missing of the only text."""
        rest = self._track.say(rest)
        if self._track.close():
            last = {**choice_of(self._body, result, choices(result)[0], ""), "text": rest}
            yield self._event({"index": 0, **last})
        yield from self._usage([result], 1)

    def all(self, results: Sequence[Result], echoes: Sequence[str]) -> Iterator[bytes]:
        """Texts that are there all at once, each in one event."""
        texts = text_completion(self._body, "", results, echoes)["choices"]
        for number, choice in enumerate(texts):
            if self._track.begin(number):
                yield self._event(choice)
        yield from self._usage(results, len(texts))

    def _event(self, choice: dict[str, Any]) -> bytes:
        return self._track.stamp(sse.event({**self._head, "choices": [choice]}))

    def _usage(self, results: Sequence[Result], texts: int) -> Iterator[bytes]:
        if self._body.wants_usage and self._track.begin(texts):
            used = {**self._head, "choices": [], "usage": sum_of_usage(results)}
            yield self._track.stamp(sse.event(used))
        yield sse.DONE
