"""Relays token streams to a caller: from the TOKENS stream, live or from a sequence number on."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from nats.aio.msg import Msg

from schemas import subjects
from schemas.errors import BrokerUnavailable
from schemas.replies import Result, TokenChunk
from services.chassis.logs import get_logger
from services.chassis.nats.endpoints import Caller
from services.chassis.nats.reading import Stored
from services.chassis.nats.streams import Storage

LAST_CHUNK_PATIENCE_S = 0.5
ATTEMPTS_APART = 1_000
"""A task is never begun so often."""

log = get_logger("router.token_relay")


class TokenRelay:
    """Sends the chunks of one request to one caller: of an agent's newest attempt each once, in order."""

    def __init__(
        self,
        storage: Storage,
        request_id: str,
        caller: Caller,
        after_sequence: int = 0,
        told_as: str | None = None,
        attempts_before: int = 0,
    ) -> None:
        self._told_as = subjects.bare_id(told_as or request_id)
        self._shared = {} if told_as in (None, request_id) else {"cache": "shared"}
        self._attempts_before = attempts_before * ATTEMPTS_APART
        self._storage = storage
        self._request_id = request_id
        self._caller = caller
        self._sequence = after_sequence
        self._next: dict[str, tuple[int, int]] = {}  # attempt and index of what comes next of an agent
        self._done: set[str] = set()
        self._progress = asyncio.Event()
        self._held: list[Stored] | None = []

    @classmethod
    @asynccontextmanager
    async def open(
        cls,
        storage: Storage,
        request_id: str,
        caller: Caller,
        after_sequence: int = 0,
        told_as: str | None = None,
        attempts_before: int = 0,
    ) -> AsyncIterator[TokenRelay]:
        """Listens for chunks for as long as the context is open; they are held until `replay`.

        The caller hears of them under the id `told_as`, and after those of so many other requests that came
        to nothing (`attempts_before`).
        """
        relay = cls(storage, request_id, caller, after_sequence, told_as, attempts_before)
        live = await storage.client.subscribe(subjects.stored_tokens_of(request_id), cb=relay._on_chunk)
        try:
            yield relay
        finally:
            await live.unsubscribe()

    @property
    def passed(self) -> int:
        """How many chunks the caller has had, of the newest attempts: about as many tokens."""
        return sum(index for _, index in self._next.values())

    async def replay(self, *, new: bool = False) -> None:
        """Sends what was stored after the caller's last sequence number, then what came meanwhile. Of a `new`
        request nothing was stored that was not heard as well."""
        if not new:
            await self._send_stored()
        while self._held:
            await self._send(self._held.pop(0))
        self._held = None

    async def _send_stored(self) -> None:
        """Sends what was stored after the caller's last sequence number, in the order of the stream. Each
        agent's chunks have a subject of their own, which the broker looks up; for that of all agents it would
        read the whole stream."""
        known = await self._known()
        subject = subjects.tokens_of(self._request_id)
        ends = {
            last.subject: last.sequence
            for last in await self._storage.last_of_each(subjects.TOKENS_STREAM, subject)
        }
        coming = [await self._after(agent, known, end) for agent, end in ends.items()]
        while waiting := [stored for stored in coming if stored is not None]:
            first = min(waiting, key=lambda stored: stored.sequence)
            await self._send(first)
            place = coming.index(first)
            coming[place] = await self._after(first.subject, first.sequence, ends[first.subject])

    async def _after(self, subject: str, sequence: int, end: int) -> Stored | None:
        """An agent's next chunk after `sequence`, if it has one up to `end`."""
        if sequence >= end:
            return None
        return await self._storage.next(subjects.TOKENS_STREAM, subject, sequence + 1)

    async def _known(self) -> int:
        """The caller's last sequence number, if it still means the chunk that the caller has.

        The stream is in memory: after a restart of the broker its numbers begin anew. Then everything is
        sent, and the caller leaves out what it has.
        """
        if not self._sequence:
            return 0
        stored = await self._storage.at(subjects.TOKENS_STREAM, self._sequence)
        ours = stored is not None and subjects.request_of_token(stored.subject) == self._request_id
        return self._sequence if ours else 0

    async def finish(self, result: Result) -> None:
        """Waits a moment for chunks that the result has overtaken, and then reads from the stream what was
        not heard. The chunks of an equal request have that one's id: none are to come."""
        if result.cached_from is not None:
            return
        expected = {answer.agent for answer in result.answers if answer.chunks}
        try:
            async with asyncio.timeout(LAST_CHUNK_PATIENCE_S):
                while expected - self._done:
                    self._progress.clear()
                    await self._progress.wait()
        except TimeoutError:
            self._held = []
            try:
                await self.replay()
            except BrokerUnavailable as error:
                log.warning("the end of a text was not heard", request_id=self._request_id, why=error.message)

    async def _on_chunk(self, msg: Msg) -> None:
        headers = msg.headers or {}
        stored = Stored(msg.subject, int(headers[subjects.SEQUENCE_HEADER]), msg.data)
        if self._held is not None:
            self._held.append(stored)
        else:
            await self._send(stored)

    async def _send(self, stored: Stored) -> None:
        """A chunk that came already, live or from the stream, is left out; so is one of an older attempt."""
        chunk = TokenChunk.read(stored.data)
        place = (chunk.attempt, chunk.index)
        if place < self._next.get(chunk.agent, (0, 0)):
            return
        self._next[chunk.agent] = (chunk.attempt, chunk.index + 1)
        told = {
            "sequence": stored.sequence,
            "request_id": self._told_as,
            "attempt": chunk.attempt + self._attempts_before,
        } | self._shared
        await self._caller.send(chunk.model_copy(update=told), chunk.kind)
        if chunk.done:
            self._done.add(chunk.agent)
            self._progress.set()
