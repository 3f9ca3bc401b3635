"""Scatter and gather: ask every member, collect until all, a quorum or the deadline, decide, store once."""

from __future__ import annotations

import asyncio
import time

from schemas import subjects
from schemas.commands import Gather
from schemas.errors import ChoirError, NoAnswers, Overloaded
from schemas.events import DecisionMade
from schemas.replies import Answer, Decision, Result
from services.aggregator.collector import Collector
from services.aggregator.decide import ballots, decide
from services.aggregator.scores import Scores
from services.chassis.delivery import Delivery, Retry
from services.chassis.service import Mesh
from services.chassis.storage import OUTCOME_PATIENCE_S

DECIDE_BEFORE_DEADLINE_S = 0.2
ROUND = 1


class GatherWorker:
    """Decides ensembles."""

    def __init__(self, mesh: Mesh, scores: Scores, poll_interval_s: float) -> None:
        self._mesh = mesh
        self._storage = mesh.storage
        self._scores = scores
        self._poll_interval_s = poll_interval_s
        self._collecting: dict[str, asyncio.Task[None]] = {}

    def cancel(self, request_id: str) -> None:
        """Nobody waits for this request any more."""
        if (task := self._collecting.get(request_id)) is not None:
            task.cancel()

    async def handle(self, gather: Gather, delivery: Delivery) -> None:
        """Brings an ensemble to its result, unless it has one."""
        if not delivery.fresh and await self._has_result(gather.request_id):
            return
        async with Collector.open(self._storage, gather.request_id, ROUND) as collector:
            if not delivery.fresh:
                await collector.read(gather.members)
            await self._scatter(gather, collector)
            if not await self._collect(gather, collector):
                return
        await self._conclude(gather, collector.answers)

    async def _has_result(self, request_id: str) -> bool:
        result = await self._storage.last(subjects.RESULTS_STREAM, subjects.result(request_id))
        return result is not None

    async def _scatter(self, gather: Gather, collector: Collector) -> None:
        """Asks every member that has not answered; asking twice under the same id is asking once."""
        commands = [gather.generate(m, ROUND) for m in gather.members if m not in collector.answers]
        try:
            await asyncio.gather(
                *(
                    self._storage.enqueue(
                        subjects.generate(command.priority, command.model, command.request_id),
                        command.to_bytes(),
                        message_id=command.task_id,
                        patience_s=OUTCOME_PATIENCE_S,
                    )
                    for command in commands
                )
            )
        except Overloaded as error:
            raise Retry(error, delay_s=error.retry_after_s or 1.0) from error

    async def _collect(self, gather: Gather, collector: Collector) -> bool:
        """Waits for the answers; False if the request was cancelled meanwhile."""
        until_s = gather.deadline_at_s - DECIDE_BEFORE_DEADLINE_S
        quorum = gather.quorum or len(gather.members)
        work = collector.wait(gather.members, quorum, until_s, self._poll_interval_s)
        task = asyncio.create_task(work)
        self._collecting[gather.request_id] = task
        try:
            await asyncio.wait([task])
        finally:
            task.cancel()
            self._collecting.pop(gather.request_id, None)
        if task.cancelled():
            return False
        task.result()
        return True

    async def _conclude(self, gather: Gather, answers: dict[str, Answer]) -> None:
        cast = ballots(gather, answers)
        if not cast:
            raise NoAnswers(_why_no_answers(gather, answers))
        decisions = decide(gather, cast, self._scores.histories)
        missing = tuple(member for member in gather.members if member not in answers)
        result = Result(
            request_id=gather.request_id,
            fingerprint=gather.fingerprint,
            topology="ensemble",
            text=decisions[0].text,
            answers=tuple(answers[member] for member in gather.members if member in answers),
            decisions=decisions,
            missing=missing,
            answer_kind=gather.answer_kind,
            choices=gather.choices,
            accepted_at_s=gather.accepted_at_s,
            completed_at_s=time.time(),
        )
        stored = await self._storage.store_once(subjects.result(gather.request_id), result.to_bytes())
        if missing:
            await self._mesh.client.publish(subjects.cancel_signal(gather.request_id))
        for decision in decisions if stored else ():
            self._announce(gather, decision, len(missing))

    def _announce(self, gather: Gather, decision: Decision, missing: int) -> None:
        self._mesh.events.publish(
            DecisionMade,
            request_id=gather.request_id,
            strategy=decision.strategy,
            agents=len(gather.members),
            abstained=len(decision.abstained),
            missing=missing,
            share=decision.share,
            margin=decision.margin,
            tie=decision.tie,
        )

    async def give_up(self, gather: Gather, error: ChoirError) -> None:
        """Stores an error as the request's result."""
        result = Result.failed(gather, error, time.time())
        await self._storage.store_once(subjects.result(gather.request_id), result.to_bytes())
        await self._mesh.client.publish(subjects.cancel_signal(gather.request_id))

    async def refuse(self, request_id: str, error: ChoirError) -> None:
        """Stores an error as the result of a request whose command cannot be read."""
        result = Result.unreadable(request_id, error, time.time())
        await self._storage.store_once(subjects.result(request_id), result.to_bytes())


def _why_no_answers(gather: Gather, answers: dict[str, Answer]) -> str:
    """What kept each member from answering."""
    reasons = [
        f"{member}: {answers[member].error.message}"  # type: ignore[union-attr]
        if member in answers
        else f"{member}: not in time"
        for member in gather.members
    ]
    return "no member of the ensemble has answered (" + "; ".join(reasons) + ")"
