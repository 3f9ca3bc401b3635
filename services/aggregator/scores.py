"""What the mesh has learnt of its agents: in the `choir_scores` bucket, the same for all aggregators."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

import nats.errors
import nats.js.errors
from nats.aio.client import Client
from nats.js import JetStreamContext
from nats.js.kv import KeyValue
from pydantic import ValidationError

from schemas import subjects
from schemas.errors import BrokerUnavailable
from services.aggregator.decide import Question
from services.aggregator.history import NO_HISTORY, AgentHistory, History, Unlabelled
from services.aggregator.learning import unlabelled_lesson
from services.aggregator.lessons import unlabelled_from_bytes, unlabelled_to_bytes
from services.aggregator.strategies import Ballot
from services.chassis.bucket_view import BucketView
from services.chassis.cancelling import ended
from services.chassis.logs import get_logger
from services.chassis.supervise import Loops

UPDATE_ATTEMPTS = 16
WRITE_INTERVAL_S = 0.2
"""Lessons without right answers come with every closed question: those of this time are written together."""

log = get_logger("aggregator.scores")


class Scores:
    """Reads from a live copy of the bucket, and changes it by compare-and-set, so that nothing is lost."""

    def __init__(self, client: Client, loops: Loops | None = None) -> None:
        self._loops = loops or Loops()
        self._js = JetStreamContext(client, timeout=2.0)
        self._view = BucketView(client, subjects.SCORES_BUCKET, self._take, self._drop)
        self._buckets: dict[str, KeyValue] = {}
        self._lessons: dict[int, Unlabelled] = {}
        self._learnt = asyncio.Event()
        self._writer: asyncio.Task[None] | None = None
        self.history = History()

    async def start(self) -> None:
        """Returns when the histories of now are known."""
        for bucket in (subjects.SCORES_BUCKET, subjects.FEEDBACK_BUCKET):
            self._buckets[bucket] = await self._js.key_value(bucket)
        await self._view.start()
        self._writer = self._loops.start(self._write_for_ever(), "scores")

    async def stop(self) -> None:
        """Writes what is not written yet."""
        if self._writer is not None:
            await ended([self._writer])
            await self.write()

    async def reload(self) -> None:
        """Reads everything again."""
        await self._view.reload()

    def _take(self, key: str, data: bytes) -> None:
        try:
            if (agent := subjects.agent_of_score(key)) is not None:
                self.history.agents[agent] = AgentHistory.from_bytes(data)
            elif (both := subjects.agent_and_topic_of_score(key)) is not None:
                self.history.topics.setdefault(both[1], {})[both[0]] = AgentHistory.from_bytes(data)
            elif (options := subjects.options_of_score(key)) is not None:
                self.history.closed[options] = unlabelled_from_bytes(data)
        except ValidationError as error:
            log.warning("unreadable history", key=key, faults=error.error_count())

    def _drop(self, key: str) -> None:
        if (agent := subjects.agent_of_score(key)) is not None:
            self.history.agents.pop(agent, None)
        elif (both := subjects.agent_and_topic_of_score(key)) is not None:
            self.history.topics.get(both[1], {}).pop(both[0], None)
        elif (options := subjects.options_of_score(key)) is not None:
            self.history.closed.pop(options, None)

    async def claim(self, request_id: str) -> bool:
        """Whether this request's feedback has not been counted yet; from now on it has."""
        try:
            await self._bucket(subjects.FEEDBACK_BUCKET).create(subjects.feedback_key(request_id), b"1")
        except nats.js.errors.KeyWrongLastSequenceError:
            return False
        except nats.errors.TimeoutError as error:
            raise BrokerUnavailable("the feedback could not be counted", retry_after_s=1.0) from error
        return True

    async def record(self, agent: str, right: bool, topic: str | None = None) -> None:
        """Adds one question to an agent's history, overall and on its topic, whoever else does so now."""
        keys = [subjects.score_key(agent)]
        if topic is not None:
            keys.append(subjects.topic_score_key(agent, topic))
        for key in keys:
            await self._change(key, lambda old: _history(old).after(right=right).to_bytes())

    def learn(self, ballots: Sequence[Ballot], question: Question) -> None:
        """Takes note of what a closed question tells of its agents without its right answer.

        All aggregators know it a moment later; one that is killed before loses the lessons of that moment.
        """
        if question.options is None:
            return
        lesson = unlabelled_lesson(self.history, ballots, question)
        self._lessons.setdefault(question.options, Unlabelled()).add(lesson)
        self._learnt.set()

    async def _write_for_ever(self) -> None:
        while True:
            await self._learnt.wait()
            await asyncio.sleep(WRITE_INTERVAL_S)
            try:
                await self.write()
            except (BrokerUnavailable, nats.errors.Error) as error:
                log.warning("lessons not written yet", why=str(error) or type(error).__name__)

    async def write(self) -> None:
        """Adds the lessons of late to the bucket; what cannot be written is kept for the next time."""
        self._learnt.clear()
        for options in list(self._lessons):
            lesson = self._lessons.pop(options)
            try:
                await self._change(subjects.unlabelled_score_key(options), _adder(lesson))
            except (BrokerUnavailable, nats.errors.Error):
                self._lessons.setdefault(options, Unlabelled()).add(lesson)
                self._learnt.set()
                raise

    async def reset(self) -> None:
        """Forgets everything that was learnt. Feedback that was counted is not counted again."""
        self._lessons.clear()
        scores = self._bucket(subjects.SCORES_BUCKET)
        stream = subjects.bucket_stream(subjects.SCORES_BUCKET)
        try:
            info = await self._js.stream_info(stream, subjects_filter=">")
            for subject in info.state.subjects or {}:
                await scores.delete(subjects.key_of_update(subject))
        except nats.errors.TimeoutError as error:
            raise BrokerUnavailable("the scores could not be reset", retry_after_s=1.0) from error

    async def _change(self, key: str, change: Callable[[bytes | None], bytes]) -> None:
        """Replaces a value by what `change` makes of it (None if there is none), whoever else does so now."""
        for _ in range(UPDATE_ATTEMPTS):
            try:
                await self._try_change(key, change)
            except (nats.js.errors.KeyWrongLastSequenceError, nats.errors.TimeoutError) as error:
                log.info("history read again", key=key, why=type(error).__name__)
                continue
            return
        raise BrokerUnavailable(f"the history under {key} could not be updated", retry_after_s=1.0)

    async def _try_change(self, key: str, change: Callable[[bytes | None], bytes]) -> None:
        scores = self._bucket(subjects.SCORES_BUCKET)
        try:
            entry = await scores.get(key)
        except nats.js.errors.KeyNotFoundError:
            await scores.create(key, change(None))
            return
        await scores.update(key, change(entry.value), last=entry.revision)

    def _bucket(self, name: str) -> KeyValue:
        if name not in self._buckets:
            raise RuntimeError("start() comes first")
        return self._buckets[name]


def _history(stored: bytes | None) -> AgentHistory:
    return AgentHistory.from_bytes(stored) if stored else NO_HISTORY


def _adder(lesson: Unlabelled) -> Callable[[bytes | None], bytes]:
    """What adds a lesson to those that are stored."""

    def add(stored: bytes | None) -> bytes:
        try:
            known = unlabelled_from_bytes(stored) if stored else Unlabelled()
        except ValidationError as error:
            log.warning("unreadable lessons are begun anew", faults=error.error_count())
            known = Unlabelled()
        known.add(lesson)
        return unlabelled_to_bytes(known)

    return add
