"""Waits for what a stream stores: answers of tasks, results of requests.

A stored message is republished, so it is heard the moment it is stored. A message that passed while the
connection was down is found in the stream itself, which is read whenever nothing was heard for a while.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from typing import Generic, TypeVar

from nats.aio.msg import Msg

from schemas import subjects
from schemas.commands import Generate
from schemas.replies import Answer
from services.chassis.nats.streams import Storage

ReplyT = TypeVar("ReplyT")


def _never(_replies: Sequence[object]) -> bool:
    """Whoever waits for all is content with no fewer."""
    return False


class StoredReplies(Generic[ReplyT]):
    """The replies of one request, by their subjects in `stream`.

    `read` makes a reply from a stored message; what that raises, whoever asks for the reply gets. Deadlines
    are by the clock `now`, in seconds. Where nothing is heard for `poll_interval_s` the stream is read.
    """

    def __init__(
        self,
        storage: Storage,
        stream: str,
        read: Callable[[bytes], ReplyT],
        poll_interval_s: float,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self._storage = storage
        self._stream = stream
        self._read = read
        self._poll_interval_s = poll_interval_s
        self._now = now
        self._unread: dict[str, bytes] = {}
        self._replies: dict[str, ReplyT] = {}
        self._waiting: dict[str, set[asyncio.Event]] = {}

    async def on_message(self, msg: Msg) -> None:
        """Takes a message from a subject on which the stream republishes."""
        self.take(subjects.stored_subject(msg.subject), msg.data)

    def take(self, subject: str, data: bytes) -> None:
        """Keeps what is stored on a subject, and wakes whoever waits for it. All subjects are write-once."""
        self._unread[subject] = data
        for came in self._waiting.get(subject, ()):
            came.set()

    def get(self, subject: str) -> ReplyT | None:
        """The reply on a subject, if it is there. Raises what `read` raises."""
        if subject in self._unread:
            self._replies[subject] = self._read(self._unread[subject])
            del self._unread[subject]
        return self._replies.get(subject)

    async def look_up(self, wanted: Iterable[str]) -> None:
        """Reads from the stream what is stored already on those of `wanted` that are missing.

        Raises BrokerUnavailable.
        """
        missing = [subject for subject in wanted if self.get(subject) is None]
        found = await asyncio.gather(*(self._storage.last(self._stream, subject) for subject in missing))
        for stored in filter(None, found):
            self.take(stored.subject, stored.data)

    async def wait(
        self,
        wanted: Sequence[str],
        until_s: float = math.inf,
        enough: Callable[[Sequence[ReplyT]], bool] = _never,
    ) -> None:
        """Returns when each of `wanted` has its reply, when those found are `enough`, or at `until_s`.

        Raises BrokerUnavailable if the stream was to be read and could not be.
        """
        with self._awaiting(wanted) as came:
            while not self._have(wanted, enough):
                left_s = until_s - self._now()
                if left_s <= 0:
                    return
                came.clear()
                try:
                    async with asyncio.timeout(min(left_s, self._poll_interval_s)):
                        await came.wait()
                except TimeoutError:
                    await self.look_up(wanted)

    def _have(self, wanted: Sequence[str], enough: Callable[[Sequence[ReplyT]], bool]) -> bool:
        found = [reply for subject in wanted if (reply := self.get(subject)) is not None]
        return len(found) == len(wanted) or enough(found)

    @contextmanager
    def _awaiting(self, wanted: Sequence[str]) -> Iterator[asyncio.Event]:
        """An event that is set whenever a reply on one of `wanted` comes."""
        came = asyncio.Event()
        for subject in wanted:
            self._waiting.setdefault(subject, set()).add(came)
        try:
            yield came
        finally:
            for subject in wanted:
                self._waiting[subject].discard(came)


def answer_subject(task: Generate) -> str:
    """Where the answer of a task is stored."""
    return subjects.answer(task.request_id, task.round, task.agent)


def usable(quorum: int) -> Callable[[Sequence[Answer]], bool]:
    """Whether as many answers as `quorum` have a text."""
    return lambda answers: sum(answer.error is None for answer in answers) >= quorum


@asynccontextmanager
async def stored_answers(
    storage: Storage, request_id: str, poll_interval_s: float, now: Callable[[], float] = time.time
) -> AsyncIterator[StoredReplies[Answer]]:
    """The answers of a request, in all rounds: heard for as long as the context is open."""
    answers = StoredReplies(storage, subjects.ANSWERS_STREAM, Answer.read, poll_interval_s, now)
    listening = await storage.client.subscribe(
        subjects.all_stored_answers_of(request_id), cb=answers.on_message
    )
    try:
        yield answers
    finally:
        await listening.unsubscribe()
