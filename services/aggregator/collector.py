"""Collects the answers of one round: as they are stored, and now and then from the stream itself."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager

from nats.aio.msg import Msg

from schemas import subjects
from schemas.replies import Answer
from services.chassis.storage import Storage


class Collector:
    """The answers of one request's round, by member."""

    def __init__(self, storage: Storage, request_id: str, round_: int) -> None:
        self._storage = storage
        self._request_id = request_id
        self._round = round_
        self._came = asyncio.Event()
        self.answers: dict[str, Answer] = {}

    @classmethod
    @asynccontextmanager
    async def open(cls, storage: Storage, request_id: str, round_: int) -> AsyncIterator[Collector]:
        """Listens for answers for as long as the context is open."""
        collector = cls(storage, request_id, round_)
        subject = subjects.stored_answers(request_id, round_)
        listening = await storage.client.subscribe(subject, cb=collector._on_answer)
        try:
            yield collector
        finally:
            await listening.unsubscribe()

    async def _on_answer(self, msg: Msg) -> None:
        self._take(msg.data)

    def _take(self, data: bytes) -> None:
        answer = Answer.model_validate_json(data)
        self.answers[answer.agent] = answer
        self._came.set()

    async def read(self, members: Iterable[str]) -> None:
        """Reads from the stream what `members` have stored already."""
        missing = [member for member in members if member not in self.answers]
        found = await asyncio.gather(
            *(
                self._storage.last(
                    subjects.ANSWERS_STREAM, subjects.answer(self._request_id, self._round, member)
                )
                for member in missing
            )
        )
        for stored in filter(None, found):
            self._take(stored.data)

    def usable(self) -> int:
        """How many answers are there that are not errors."""
        return sum(answer.error is None for answer in self.answers.values())

    async def wait(self, members: tuple[str, ...], quorum: int, until_s: float, poll_s: float) -> None:
        """Returns when all members have answered, `quorum` of them with a text, or at `until_s` (epoch)."""
        while len(self.answers) < len(members) and self.usable() < quorum:
            left_s = until_s - time.time()
            if left_s <= 0:
                return
            self._came.clear()
            try:
                await asyncio.wait_for(self._came.wait(), min(left_s, poll_s))
            except TimeoutError:
                await self.read(members)
