"""A reliable request: followed to its result, whatever dies on the way.

The request is sent once. When its reply does not come (the router died, the connection was lost), the
client does not guess: it asks for the result under the same id, from the last token on that it has, and
only if no router knows of the request it is sent again. While nobody answers at all it goes on trying, for as
long as the request was given.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing

from schemas import subjects
from schemas.commands import Ask, Fetch
from schemas.errors import (
    BrokerUnavailable,
    ChoirError,
    DeadlineExceeded,
    MeshUnreachable,
    NotReady,
    RequestIdConflict,
    UnknownRequest,
)
from schemas.replies import Result, TokenChunk
from services.chassis.telemetry.tracing import Span
from services.client.connection import HOW_TO_START
from services.client.replies import NoReply, ReplyMultiplexer, read
from services.client.silence import Silence
from services.client.streamed_text import StreamedText

GRACE_S = 12.0
"""How long after a request's own deadline its result may still be on the way, once it was taken."""
SHORTEST_S = 0.1
"""What a request that is sent again has left at least: the least that an Ask may say."""
SLICE_S = 5.0
"""How long silence is borne before the client asks for the result again."""
REPLY_MARGIN_S = 1.5
PAUSE_S = 0.2
TROUBLE = (NoReply, NotReady, BrokerUnavailable, UnknownRequest, RequestIdConflict)
"""What an attempt may end with that is followed by another one."""

Repeats = Callable[[], Awaitable[bool]]
"""Says of a request whose id stands for another one whether that is this one all the same, and somebody of
another version has made it out of the same words."""


class ReliableRequest:
    """One request, on its way. `new` if its id was made for it, and nobody has asked under it. A request that
    `repeats` another one, as that says, gets the result of that one."""

    def __init__(
        self,
        replies: ReplyMultiplexer,
        ask: Ask,
        silence: Silence,
        tenant: str | None = None,
        *,
        asked_before: bool = False,
        new: bool = False,
        repeats: Repeats | None = None,
    ) -> None:
        self._repeats = repeats
        self._replies = replies
        self._tenant = tenant
        self._ask = ask
        self._silence = silence
        self._streamed = StreamedText()
        self._span = Span.here()
        self._started_s = time.monotonic()
        self._heard_s = self._started_s
        self._sent = False
        self._asked_before = asked_before
        self._taken = asked_before  # a router may have accepted it
        self._new = new
        self._fetching = False  # what was sent last has its reply in time, whatever it says

    @property
    def _left_s(self) -> float:
        """How long it is still followed: nothing can be on the way of a request that nobody took."""
        grace_s = GRACE_S if self._taken else 0.0
        return self._started_s + self._ask.timeout_s + grace_s - time.monotonic()

    async def replies(self) -> AsyncGenerator[TokenChunk | Result, None]:
        """Token chunks, if the request streams, then the result. Raises the typed error instead of it."""
        if not self._ask.stream:
            yield await self.result()
            return
        trouble: ChoirError | None = None
        while self._left_s > 0:
            attempt_s = time.monotonic()
            try:
                async with aclosing(self._attempt()) as replies:
                    async for reply in replies:
                        yield reply
                        if isinstance(reply, Result):
                            return
            except TROUBLE as error:
                trouble = await self._troubled(error)
            await asyncio.sleep(attempt_s + PAUSE_S - time.monotonic())
        raise self._given_up(trouble)

    async def result(self) -> Result:
        """The result of a request that does not stream. Raises the typed error instead of it."""
        trouble: ChoirError | None = None
        while self._left_s > 0:
            attempt_s = time.monotonic()
            try:
                subject, request, wait_s, new = self._next_request()
                wait_s += REPLY_MARGIN_S
                reply = await self._replies.call(
                    subject, request.to_bytes(), wait_s, self._span, self._tenant, new=new
                )
                self._hear()
                return read(reply, Result)
            except TROUBLE as error:
                trouble = await self._troubled(error)
            await asyncio.sleep(attempt_s + PAUSE_S - time.monotonic())
        raise self._given_up(trouble)

    async def _troubled(self, error: Exception) -> ChoirError:
        """What an attempt that came to nothing means, should it be the last.

        A router is silent about a request until it has ended, and about a fetch for its `wait_s` at most.
        """
        if isinstance(error, NoReply):
            trouble, connected = self._on_silence(error), self._replies.connected
            if error.nobody or self._fetching or not connected:
                self._silence.lasts(self._heard_s, self._left_s, connected=connected)
            return trouble
        assert isinstance(error, ChoirError)
        self._hear()
        if isinstance(error, RequestIdConflict):
            if self._taken or self._repeats is None or not await self._repeats():
                raise error
            self._taken = self._asked_before = True
        elif isinstance(error, UnknownRequest):
            if self._asked_before:
                raise error
            self._taken = False
        else:
            self._taken = True
        return error

    def _hear(self) -> None:
        self._heard_s = time.monotonic()
        self._silence.ends()

    async def _attempt(self) -> AsyncGenerator[TokenChunk | Result, None]:
        """Sends the request, or asks for its result once it has been sent, and passes on what comes."""
        subject, request, wait_s, new = self._next_request()
        payload = request.to_bytes()
        queue = await self._replies.open(subject, payload, self._span, self._tenant, new=new)
        try:
            while True:
                reply = await queue.next(wait_s + REPLY_MARGIN_S)
                self._hear()
                if reply.kind != "token":
                    result = read(reply, Result)
                    for chunk in self._streamed.rest(result):
                        yield chunk
                    yield result
                    return
                if (shown := self._streamed.take(read(reply, TokenChunk))) is not None:
                    yield shown
                if self._streamed.missing():
                    self._taken = True
                    return
        finally:
            self._replies.close(queue)

    def _next_request(self) -> tuple[str, Ask | Fetch, float, bool]:
        """Where to send what, how long its reply may take, and whether it is sent for the first time."""
        self._fetching = self._taken
        if not self._taken:
            sent_before, self._sent = self._sent, True
            ask = self._shorter() if sent_before else self._ask
            subject = subjects.STREAM_ASK if ask.stream else subjects.ASK
            return subject, ask, SLICE_S, self._new and not sent_before
        wait_s = max(0.0, min(SLICE_S, self._left_s))
        fetch = Fetch(
            request_id=self._ask.request_id or "",
            wait_s=wait_s,
            stream=self._ask.stream,
            after_sequence=self._streamed.sequence,
        )
        return subjects.STREAM_FETCH if fetch.stream else subjects.FETCH, fetch, wait_s, False

    def _shorter(self) -> Ask:
        """The request as it is sent again: with the time that it has left, for its client waits no longer."""
        return self._ask.model_copy(update={"timeout_s": max(SHORTEST_S, round(self._left_s, 1))})

    def _on_silence(self, nothing: NoReply) -> ChoirError:
        """What silence means, should it last until the end."""
        if nothing.nobody:
            return MeshUnreachable(f"the broker answers, but no router does; {HOW_TO_START}")
        self._taken = True
        return DeadlineExceeded("no reply")

    def _given_up(self, trouble: ChoirError | None) -> ChoirError:
        if isinstance(trouble, MeshUnreachable):
            return trouble
        request = f"request {self._ask.request_id}"
        if not self._replies.connected:
            return MeshUnreachable(f"the broker has gone; fetch the result of {request} when it is back")
        return DeadlineExceeded(
            f"no result of {request} within {self._ask.timeout_s:g} s and {GRACE_S:g} s of grace; "
            "fetch it later, or ask again with more time"
        )
