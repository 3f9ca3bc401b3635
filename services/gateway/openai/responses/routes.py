"""`/v1/responses`: made, followed, fetched, cancelled, deleted, on any gateway of the mesh."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing, suppress
from typing import Any

from pydantic_core import to_json
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from schemas.errors import (
    ChoirError,
    InvalidRequest,
    NotReady,
    PoisonMessage,
    RequestIdConflict,
    ResultEvicted,
    UnknownRequest,
)
from schemas.replies import Result, TokenChunk
from schemas.requests.chat import ChatMessage
from schemas.requests.responses import ResponseRecord
from services.gateway.http.body import checked, read_json, takes
from services.gateway.http.context import GatewayContext, of_its_class
from services.gateway.http.streaming import StreamedReply
from services.gateway.openai.chat.endpoint import event_stream
from services.gateway.openai.replying import sse
from services.gateway.openai.replying.outcome import choices
from services.gateway.openai.responses.body import ResponseBody, record_of
from services.gateway.openai.responses.events import Event, ResponseEvents, TextChanged
from services.gateway.openai.responses.identity import response_id
from services.gateway.openai.responses.records import Keeping, Records
from services.gateway.openai.responses.response_object import failed, finished, unfinished
from services.gateway.requests.identity import ID_HEADER
from services.gateway.requests.shown import Shown, begun_again

OVER = (UnknownRequest, ResultEvicted, PoisonMessage)
"""What cannot be given up any more. A command that nobody can read is queued until its end is stored."""


class Responses:
    """The Responses API."""

    def __init__(self, context: GatewayContext) -> None:
        self._context = context
        self._records = Records(context)

    def routes(self) -> tuple[Route, ...]:
        """Where it is served."""
        one = "/v1/responses/{id}"
        return (
            Route("/v1/responses", self.create, methods=["POST"]),
            Route(one, self.retrieve, methods=["GET"]),
            Route(one, self.delete, methods=["DELETE"]),
            Route(f"{one}/cancel", self.cancel, methods=["POST"]),
        )

    @takes(ResponseBody)
    async def create(self, request: Request) -> Response | StreamedReply:
        """A new response: whole, as a stream, or in the background."""
        given = await read_json(request, self._context.settings)
        body = checked(given, ResponseBody)
        if body.background:
            self._context.check_background()
        target = await self._context.models.find(body.model)
        said = await self._said(body.previous_response_id)
        request_id = await self._context.retries.id_of(request, given)
        record = record_of(body, given, said, target, request_id, self._context.settings.timeout_s)
        record = record.model_copy(update={"ask": await self._context.spared(record.ask, target)})
        keeping = await self._records.keep(record) if body.kept else Keeping(self._context, record)
        if body.background:
            async with keeping.asking():
                await self._submit(record)
                await keeping.taken()
        if body.stream:
            return self._stream(record, self._new_frames(record, keeping, kept=body.kept))
        if body.background:
            return _json(unfinished(keeping.told, "queued"), record)
        async with keeping.asking():
            result = await self._context.result_of(record.ask, settled=body.kept)
            await keeping.taken()
        return _json(finished(keeping.told, result), record)

    async def _submit(self, record: ResponseRecord) -> None:
        """Has the work done in the background; a request that repeats another one has it done already."""
        try:
            await self._context.mesh.submit_ask(of_its_class(record.ask))
        except RequestIdConflict:
            if not await self._context.retries.repeats():
                raise

    async def retrieve(self, request: Request) -> Response | StreamedReply:
        """A response as it is now, or its stream after the event `starting_after`."""
        record = await self._records.get(request.path_params["id"])
        if request.query_params.get("stream", "false").lower() != "true":
            return _json(await self._as_it_is(record), record)
        after = request.query_params.get("starting_after", "-1")
        try:
            number = int(after)
        except ValueError as error:
            raise InvalidRequest(
                "starting_after: it must be a whole number", field="starting_after"
            ) from error
        coming = events_of(record, self._context.mesh.resume(record.ask), early=True)
        return self._stream(record, _frames(coming, number))

    async def cancel(self, request: Request) -> Response:
        """Gives a response up, unless it is complete."""
        record = await self._records.get(request.path_params["id"])
        with suppress(*OVER):
            await self._context.mesh.cancel(_request_id(record))
        return _json(await self._as_it_is(record), record)

    async def delete(self, request: Request) -> Response:
        """Forgets a response, and gives it up if it is not complete."""
        record = await self._records.get(request.path_params["id"])
        with suppress(*OVER):
            await self._context.mesh.cancel(_request_id(record))
        await self._records.delete(record)
        return _json({"id": response_id(record), "object": "response", "deleted": True}, record)

    async def _said(self, previous: str | None) -> tuple[ChatMessage, ...]:
        """What was said until now, with the answer of the response before."""
        if previous is None:
            return ()
        try:
            record = await self._records.get(previous)
            result = await self._context.mesh.fetch(_request_id(record))
        except (UnknownRequest, ResultEvicted) as error:
            error.field = "previous_response_id"
            raise
        choice = choices(result)[0]
        answer = ChatMessage(role="assistant", content=choice.text, tool_calls=choice.tool_calls)
        return (*record.conversation, answer)

    async def _as_it_is(self, record: ResponseRecord) -> dict[str, Any]:
        try:
            result = await self._context.mesh.fetch(_request_id(record))
        except NotReady:
            return unfinished(record)
        except ChoirError as error:
            if error.result is None and not isinstance(error, PoisonMessage):  # it went wrong on the way
                raise
            return failed(record, error.body(record.ask.request_id), record.created_at_s)
        return finished(record, result)

    def _stream(self, record: ResponseRecord, frames: AsyncGenerator[bytes, None]) -> StreamedReply:
        return event_stream(self._context, frames, {ID_HEADER: _request_id(record)})

    def _new_frames(
        self, record: ResponseRecord, keeping: Keeping, *, kept: bool
    ) -> AsyncGenerator[bytes, None]:
        """All events of a response that is asked for now, or goes on in the background."""
        if record.background:
            replies = self._context.mesh.resume(record.ask)
        else:
            replies = keeping.follow(self._context.follow(record.ask, settled=kept))
        return _frames(events_of(keeping.told, replies, early=record.background))


async def _frames(events: AsyncGenerator[Event, None], after: int = -1) -> AsyncGenerator[bytes, None]:
    """The events whose number is greater than `after`."""
    async with aclosing(events) as coming:
        async for event in coming:
            if event["sequence_number"] > after:
                yield sse.named_event(event["type"], event)


async def events_of(
    record: ResponseRecord, replies: AsyncGenerator[TokenChunk | Result, None], *, early: bool
) -> AsyncGenerator[Event, None]:
    """All events of a response. `early`: it was taken, so the first ones wait for nothing.

    A result that is a failure is one more event after the first ones. What goes wrong before these, or on the
    way (a mesh that is full, a text that was begun again), is raised: the response goes on, and whoever comes
    back for it goes on with the next event.
    """
    events, shown = ResponseEvents(record), Shown()
    begun = early
    if early:
        for event in events.start():
            yield event
    try:
        async with aclosing(replies):
            async for reply in replies:
                if not begun:
                    begun = True
                    for event in events.start():
                        yield event
                for event in _next(events, shown, reply):
                    yield event
    except ChoirError as error:
        if not begun or error.result is None:
            raise
        yield events.failure(error.body(record.ask.request_id), record.created_at_s)


def _next(events: ResponseEvents, shown: Shown, reply: TokenChunk | Result) -> list[Event]:
    """What a chunk or the result adds. A text that was begun again and is another one ends the stream."""
    try:
        if isinstance(reply, Result):
            return events.end(reply)
        return [*events.think(shown.think(reply)), *events.say(shown.say(reply))]
    except TextChanged as error:
        raise begun_again() from error


def _request_id(record: ResponseRecord) -> str:
    return record.ask.request_id or ""


def _json(value: dict[str, Any], record: ResponseRecord) -> Response:
    headers = {ID_HEADER: _request_id(record)}
    return Response(to_json(value), media_type="application/json", headers=headers)
