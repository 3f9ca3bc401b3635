"""The score store: what was learnt of agents, in the bucket `choir_scores`, the same for all aggregators."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Callable, Sequence
from functools import partial

import nats.errors
import nats.js.errors
from nats.aio.client import Client
from pydantic import ValidationError

from schemas import subjects
from schemas.errors import ChoirError, ErrorBody, Overloaded
from services.aggregator.decide import Question
from services.aggregator.scores.history import History, Unlabelled
from services.aggregator.scores.learning import unlabelled_update
from services.aggregator.scores.score_codec import (
    history_from_bytes,
    unlabelled_from_bytes,
    with_answer,
    with_update,
)
from services.aggregator.strategies import Ballot
from services.chassis.logs import get_logger
from services.chassis.nats.bucket import BYTES, Bucket
from services.chassis.process.cancelling import ended
from services.chassis.process.supervise import Loops

MAX_TOPICS = 256
WRITE_INTERVAL_S = 0.2
"""Updates without right answers come with every closed question: those of this time are written together."""
RETRY_INTERVAL_S = 2.0

Change = Callable[[bytes | None], bytes]
"""From what is stored (None if nothing is) to what is wanted: see `Bucket.change`."""

log = get_logger("aggregator.scores")


def full(bucket: str) -> str:
    """What is said when nothing more can be learnt."""
    return (
        f"the bucket {bucket} is full: nothing more can be learnt; keep what is there with "
        "choir scores --export FILE, and have it forgotten with choir scores --reset"
    )


class Scores:
    """Reads from a live copy of the bucket, and changes it so that nothing is lost or counted twice.

    `problem` says why nothing can be learnt, if that is so.
    """

    def __init__(self, client: Client, loops: Loops | None = None) -> None:
        self._loops = loops or Loops()
        self._bucket = Bucket(
            client, subjects.SCORES_BUCKET, BYTES, self._take, self._drop, full=full(subjects.SCORES_BUCKET)
        )
        self._updates: dict[int, Unlabelled] = {}
        self._tried: dict[int, tuple[str, Unlabelled]] = {}
        self._one_write = asyncio.Lock()
        self._learnt = asyncio.Event()
        self._writer: asyncio.Task[None] | None = None
        self.history = History()
        self.problem: ErrorBody | None = None

    async def start(self) -> None:
        """Returns when the histories of now are known."""
        await self._bucket.watch()
        self._writer = self._loops.start(self._write_for_ever(), "scores")

    async def stop(self) -> None:
        """Writes what is not written yet."""
        if self._writer is not None:
            await ended([self._writer])
            await self.write()

    async def reload(self) -> None:
        """Reads everything again."""
        await self._bucket.reload()

    def _take(self, key: str, data: bytes) -> None:
        try:
            if (agent := subjects.agent_of_score(key)) is not None:
                self.history.agents[agent] = history_from_bytes(data)
            elif (both := subjects.agent_and_topic_of_score(key)) is not None:
                self.history.topics.setdefault(both[1], {})[both[0]] = history_from_bytes(data)
            elif (options := subjects.options_of_score(key)) is not None:
                self.history.closed[options] = unlabelled_from_bytes(data)
        except ValidationError as error:
            log.warning("unreadable history", key=key, faults=error.error_count())

    def _drop(self, key: str) -> None:
        if (agent := subjects.agent_of_score(key)) is not None:
            self.history.agents.pop(agent, None)
        elif (both := subjects.agent_and_topic_of_score(key)) is not None:
            known = self.history.topics.get(both[1], {})
            known.pop(both[0], None)
            if not known:
                self.history.topics.pop(both[1], None)
        elif (options := subjects.options_of_score(key)) is not None:
            self.history.closed.pop(options, None)

    async def record(
        self, agent: str, right: bool, topic: str | None = None, update_id: str | None = None
    ) -> None:
        """Adds one question to an agent's history, overall and on its topic, whoever else does so now.

        What has the `update_id` of one that is counted already changes nothing.
        """
        if self._writer is None:
            raise RuntimeError("start() comes first")
        update_id = update_id or secrets.token_hex(8)
        keys = [subjects.score_key(agent)]
        if topic is not None:
            await self._make_room_for(topic)
            keys.append(subjects.topic_score_key(agent, topic))
        for key in keys:
            await self._bucket.change(key, _readable(partial(with_answer, update_id=update_id, right=right)))

    async def _make_room_for(self, topic: str) -> None:
        """Forgets the topic on which least was asked if this is one too many: topics are a client's words."""
        topics = self.history.topics
        if topic in topics or len(topics) < MAX_TOPICS:
            return
        least = min(topics, key=lambda name: (sum(each.asked for each in topics[name].values()), name))
        log.info("a topic is forgotten: there are too many", topic=least)
        for agent in list(topics.pop(least)):
            await self._bucket.purge(subjects.topic_score_key(agent, least))

    def learn(self, ballots: Sequence[Ballot], question: Question) -> None:
        """Takes note of what a closed question tells of its agents without its right answer.

        All aggregators know it a moment later; one that is killed before loses the updates of that moment.
        """
        if question.options is None:
            return
        update = unlabelled_update(self.history, ballots, question)
        self._updates.setdefault(question.options, Unlabelled()).add(update)
        self._learnt.set()

    async def _write_for_ever(self) -> None:
        while True:
            await self._learnt.wait()
            await asyncio.sleep(WRITE_INTERVAL_S)
            try:
                await self.write()
            except (ChoirError, nats.errors.Error, nats.js.errors.Error) as error:
                log.warning("updates not written yet", why=str(error) or type(error).__name__)
                self.problem = error.body() if isinstance(error, Overloaded) else None
                self._learnt.set()
                await asyncio.sleep(RETRY_INTERVAL_S)
            else:
                self.problem = None

    async def write(self) -> None:
        """Adds the updates of late to the bucket; what is not known to be written is kept for the next time.

        It is kept under the id under which it was tried: if it was written after all, it is not added again.
        """
        async with self._one_write:
            self._learnt.clear()
            for options in {*self._tried, *self._updates}:
                await self._write_tried(options)
                if options in self._updates:
                    self._tried[options] = (secrets.token_hex(8), self._updates.pop(options))
                    await self._write_tried(options)

    async def _write_tried(self, options: int) -> None:
        if options in self._tried:
            update_id, update = self._tried[options]
            change = _readable(partial(with_update, update_id=update_id, update=update))
            await self._bucket.change(subjects.unlabelled_score_key(options), change)
            self._tried.pop(options, None)

    async def reset(self) -> None:
        """Forgets everything that was learnt. Feedback that was counted is not counted again."""
        self._updates.clear()
        self._tried.clear()
        for key in await self._bucket.keys(">"):
            await self._bucket.purge(key)


def _readable(change: Change) -> Change:
    """A change that begins anew where nobody can read what is stored."""

    def apply(stored: bytes | None) -> bytes:
        try:
            return change(stored)
        except ValidationError as error:
            log.warning("the stored scores cannot be read: starting without them", faults=error.error_count())
            return change(None)

    return apply
