"""Collects the answers of one request: as they are stored, and now and then from the stream itself."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from contextlib import asynccontextmanager

from nats.aio.msg import Msg

from schemas import subjects
from schemas.replies import Answer
from services.chassis.nats.streams import Storage

Place = tuple[int, str]
"""Where an answer belongs: its round, and the agent."""


class Collector:
    """The answers of one request, by round and agent."""

    def __init__(self, storage: Storage, request_id: str, now: Callable[[], float] = time.time) -> None:
        self._storage = storage
        self._request_id = request_id
        self._now = now
        self._came = asyncio.Event()
        self.answers: dict[Place, Answer] = {}

    @classmethod
    @asynccontextmanager
    async def open(
        cls, storage: Storage, request_id: str, now: Callable[[], float] = time.time
    ) -> AsyncIterator[Collector]:
        """Listens for answers of all rounds for as long as the context is open."""
        collector = cls(storage, request_id, now)
        subject = subjects.all_stored_answers_of(request_id)
        listening = await storage.client.subscribe(subject, cb=collector._on_answer)
        try:
            yield collector
        finally:
            await listening.unsubscribe()

    async def _on_answer(self, msg: Msg) -> None:
        self._take(msg.data)

    def _take(self, data: bytes) -> None:
        answer = Answer.read(data)
        self.answers[answer.round, answer.agent] = answer
        self._came.set()

    def of_round(self, round_: int) -> dict[str, Answer]:
        """The answers of one round, by agent."""
        return {agent: answer for (number, agent), answer in self.answers.items() if number == round_}

    async def read(self, places: Iterable[Place]) -> None:
        """Reads from the stream what is stored already in these places."""
        missing = [place for place in places if place not in self.answers]
        found = await asyncio.gather(
            *(
                self._storage.last(subjects.ANSWERS_STREAM, subjects.answer(self._request_id, round_, agent))
                for round_, agent in missing
            )
        )
        for stored in filter(None, found):
            self._take(stored.data)

    async def wait(self, places: Sequence[Place], enough: int, until_s: float, poll_s: float) -> None:
        """Returns when all places have an answer, `enough` of them with a text, or at `until_s`.

        That is seconds since the epoch by the clock `now`.
        """
        while not self._has(places, enough):
            left_s = until_s - self._now()
            if left_s <= 0:
                return
            self._came.clear()
            try:
                async with asyncio.timeout(min(left_s, poll_s)):
                    await self._came.wait()
            except TimeoutError:
                await self.read(places)

    def _has(self, places: Sequence[Place], enough: int) -> bool:
        found = [self.answers[place] for place in places if place in self.answers]
        return len(found) == len(places) or sum(answer.error is None for answer in found) >= enough
