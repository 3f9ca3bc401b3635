"""The accuracy histories of all agents, kept in the `choir_scores` bucket."""

from __future__ import annotations

import nats.errors
import nats.js.errors
from nats.aio.client import Client
from nats.js import JetStreamContext
from nats.js.kv import KeyValue
from pydantic import ValidationError

from schemas import subjects
from schemas.errors import BrokerUnavailable
from services.aggregator.history import NO_HISTORY, AgentHistory, History
from services.chassis.bucket_view import BucketView
from services.chassis.logs import get_logger

UPDATE_ATTEMPTS = 16

log = get_logger("aggregator.scores")


class Scores:
    """Reads histories from a live copy, and changes them by compare-and-set."""

    def __init__(self, client: Client) -> None:
        self._js = JetStreamContext(client, timeout=2.0)
        self._view = BucketView(client, subjects.SCORES_BUCKET, self._take, self._drop)
        self._buckets: dict[str, KeyValue] = {}
        self.history = History()

    async def start(self) -> None:
        """Returns when the histories of now are known."""
        for bucket in (subjects.SCORES_BUCKET, subjects.FEEDBACK_BUCKET):
            self._buckets[bucket] = await self._js.key_value(bucket)
        await self._view.start()

    async def reload(self) -> None:
        """Reads all histories again."""
        await self._view.reload()

    def _take(self, key: str, data: bytes) -> None:
        agent = subjects.agent_of_score(key)
        if agent is None:
            return
        try:
            self.history.agents[agent] = AgentHistory.from_bytes(data)
        except ValidationError as error:
            log.warning("unreadable history", agent=agent, faults=error.error_count())

    def _drop(self, key: str) -> None:
        agent = subjects.agent_of_score(key)
        if agent is not None:
            self.history.agents.pop(agent, None)

    async def claim(self, request_id: str) -> bool:
        """Whether this request's feedback has not been counted yet; from now on it has."""
        try:
            await self._bucket(subjects.FEEDBACK_BUCKET).create(subjects.feedback_key(request_id), b"1")
        except nats.js.errors.KeyWrongLastSequenceError:
            return False
        except nats.errors.TimeoutError as error:
            raise BrokerUnavailable("the feedback could not be counted", retry_after_s=1.0) from error
        return True

    async def record(self, agent: str, right: bool) -> None:
        """Adds one question to an agent's history, whoever else does the same at this moment."""
        key = subjects.score_key(agent)
        for _ in range(UPDATE_ATTEMPTS):
            try:
                await self._update(key, right)
            except (nats.js.errors.KeyWrongLastSequenceError, nats.errors.TimeoutError) as error:
                log.info("history read again", agent=agent, why=type(error).__name__)
                continue
            return
        raise BrokerUnavailable(f"the history of {agent} could not be updated", retry_after_s=1.0)

    async def _update(self, key: str, right: bool) -> None:
        scores = self._bucket(subjects.SCORES_BUCKET)
        try:
            entry = await scores.get(key)
        except nats.js.errors.KeyNotFoundError:
            await scores.create(key, NO_HISTORY.after(right=right).to_bytes())
            return
        history = AgentHistory.from_bytes(entry.value or b"{}").after(right=right)
        await scores.update(key, history.to_bytes(), last=entry.revision)

    def _bucket(self, name: str) -> KeyValue:
        if name not in self._buckets:
            raise RuntimeError("start() comes first")
        return self._buckets[name]
