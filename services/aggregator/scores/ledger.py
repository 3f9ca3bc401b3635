"""The ledger of feedback: the feedback on a request is counted once, whatever dies in the middle.

1. What it teaches is put under a key that says that it is pending.
2. Every history that it changes is changed. Each of them knows which updates it holds, so doing this again
   changes nothing.
3. The request is marked as counted, and nothing of it is pending any more.

Whoever finds an update pending goes on with it: the client's next attempt at once, and any aggregator when it
has seen it for a while.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Callable

import nats.errors
import nats.js.errors
from nats.aio.client import Client
from pydantic import ValidationError

from schemas import subjects
from schemas.errors import ChoirError
from services.aggregator.scores.score_codec import FeedbackUpdate
from services.aggregator.scores.store import Scores, full
from services.chassis.logs import get_logger
from services.chassis.nats.bucket import BYTES, Bucket
from services.chassis.process.cancelling import ended
from services.chassis.process.supervise import Loops

SWEEP_INTERVAL_S = 10.0

log = get_logger("aggregator.ledger")


class FeedbackLedger:
    """Counts feedback. `on_counted` is told of each update that this aggregator has brought to its end."""

    def __init__(
        self,
        client: Client,
        scores: Scores,
        on_counted: Callable[[FeedbackUpdate], None] = lambda _: None,
        loops: Loops | None = None,
    ) -> None:
        self._loops = loops or Loops()
        self._bucket = Bucket(client, subjects.FEEDBACK_BUCKET, BYTES, full=full(subjects.FEEDBACK_BUCKET))
        self._scores = scores
        self._on_counted = on_counted
        self._seen: frozenset[str] = frozenset()
        self._sweeper: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Goes on, from now on, with what others have left."""
        await self._bucket.keys(subjects.pending_feedback_keys())  # it is there, or the service ends now
        self._sweeper = self._loops.start(self._sweep_for_ever(), "feedback")

    async def stop(self) -> None:
        """Ends; what is pending then is for the next one."""
        if self._sweeper is not None:
            await ended([self._sweeper])

    async def count(self, update: FeedbackUpdate) -> bool:
        """Returns when the feedback on the request is counted; False if it was before, or by another one.

        Of two updates on one request the first one counts. Raises BrokerUnavailable, or Overloaded if a
        bucket is full; to ask again is safe.
        """
        request_id = update.request_id
        pending, wanted = subjects.pending_feedback_key(request_id), update.to_bytes()
        stands = await self._bucket.change(pending, lambda stored: stored or wanted)
        if (await self._bucket.get(subjects.feedback_key(request_id))).value is not None:
            await self._bucket.purge(pending)
            return False
        return await self._finish(_read(stands) or update)

    async def _finish(self, update: FeedbackUpdate) -> bool:
        """Steps 2 and 3; True if it was this call that marked the request."""
        topic = update.topic
        for agent in (*update.right, *update.wrong):
            await self._scores.record(agent, agent in update.right, topic, update.request_id)
        mine = secrets.token_hex(8).encode()
        key = subjects.feedback_key(update.request_id)
        first = await self._bucket.change(key, lambda stored: stored or mine) == mine
        await self._bucket.purge(subjects.pending_feedback_key(update.request_id))
        if first:
            self._on_counted(update)
        return first

    async def _sweep_for_ever(self) -> None:
        while True:
            try:
                await self._sweep()
            except (ChoirError, nats.errors.Error, nats.js.errors.Error) as error:
                log.warning("pending feedback not counted yet", why=str(error) or type(error).__name__)
            await asyncio.sleep(SWEEP_INTERVAL_S)

    async def _sweep(self) -> None:
        """Goes on with what was pending already the last time: nobody else seems to."""
        pending = frozenset(await self._bucket.keys(subjects.pending_feedback_keys()))
        left, self._seen = pending & self._seen, pending
        for key in sorted(left):
            stored = (await self._bucket.get(key)).value
            if stored is None:
                continue
            update = _read(stored)
            if update is None:
                await self._bucket.purge(key)
            elif await self.count(update):
                log.info("feedback that was left is counted", request_id=update.request_id)


def _read(stored: bytes) -> FeedbackUpdate | None:
    try:
        return FeedbackUpdate.model_validate_json(stored)
    except ValidationError as error:
        log.warning("unreadable pending feedback", faults=error.error_count())
        return None
