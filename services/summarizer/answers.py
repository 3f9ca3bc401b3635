"""The answers of one request: as they are stored, and now and then from the stream itself."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from nats.aio.msg import Msg

from schemas import subjects
from schemas.commands import Generate
from schemas.replies import Answer
from services.chassis.nats.streams import Storage


class AnswerInbox:
    """All answers of a request, by task."""

    def __init__(self, storage: Storage, request_id: str, poll_interval_s: float) -> None:
        self._storage = storage
        self._request_id = request_id
        self._poll_interval_s = poll_interval_s
        self._answers: dict[str, Answer] = {}
        self._awaited: dict[str, asyncio.Event] = {}

    @classmethod
    @asynccontextmanager
    async def open(
        cls, storage: Storage, request_id: str, poll_interval_s: float
    ) -> AsyncIterator[AnswerInbox]:
        """Listens for answers for as long as the context is open."""
        inbox = cls(storage, request_id, poll_interval_s)
        subject = subjects.all_stored_answers_of(request_id)
        listening = await storage.client.subscribe(subject, cb=inbox._on_answer)
        try:
            yield inbox
        finally:
            await listening.unsubscribe()

    async def _on_answer(self, msg: Msg) -> None:
        self._take(msg.data)

    def _take(self, data: bytes) -> None:
        answer = Answer.read(data)
        self._answers[answer.task_id] = answer
        if (awaited := self._awaited.get(answer.task_id)) is not None:
            awaited.set()

    async def read(self) -> None:
        """Reads from the stream all that is stored already."""
        subject = subjects.answers_of(self._request_id)
        sequence = 0
        while (
            stored := await self._storage.next(subjects.ANSWERS_STREAM, subject, sequence + 1)
        ) is not None:
            sequence = stored.sequence
            self._take(stored.data)

    def get(self, task: Generate) -> Answer | None:
        """The answer of a task, if it is there."""
        return self._answers.get(task.task_id)

    async def wait(self, task: Generate) -> Answer:
        """The answer of a task, once it is there. Whoever waits has a deadline of its own."""
        came = self._awaited[task.task_id] = asyncio.Event()
        try:
            while (answer := self.get(task)) is None:
                try:
                    async with asyncio.timeout(self._poll_interval_s):
                        await came.wait()
                except TimeoutError:
                    await self._look_for(task)
            return answer
        finally:
            del self._awaited[task.task_id]

    async def _look_for(self, task: Generate) -> None:
        """In case the message passed while the connection was down."""
        subject = subjects.answer(task.request_id, task.round, task.agent)
        stored = await self._storage.last(subjects.ANSWERS_STREAM, subject)
        if stored is not None:
            self._take(stored.data)
