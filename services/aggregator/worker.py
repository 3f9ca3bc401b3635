"""Scatter and gather: ask every member, collect until all, a quorum or the deadline, decide, store once."""

from __future__ import annotations

import asyncio
import time

from schemas import subjects
from schemas.commands import Gather, Generate
from schemas.errors import ChoirError, NoAnswers, Overloaded
from schemas.events import DecisionMade, GatherCompleted, GatherPulled, TaskQueued
from schemas.replies import Answer, Decision, Result
from services.aggregator.ballots import read_ballots
from services.aggregator.collector import Collector
from services.aggregator.decide import Question, decide, options_of
from services.aggregator.scores import Scores
from services.chassis.delivery import Delivery, Retry
from services.chassis.outcome import conclude
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
        started_ns = time.perf_counter_ns()
        self._tell_pulled(gather, delivery)
        async with Collector.open(self._storage, gather.request_id, ROUND) as collector:
            if not delivery.fresh:
                await collector.read(gather.members)
            await self._scatter(gather, collector)
            if not await self._collect(gather, collector):
                return
        await self._conclude(gather, collector.answers, time.perf_counter_ns() - started_ns)

    async def _has_result(self, request_id: str) -> bool:
        result = await self._storage.last(subjects.RESULTS_STREAM, subjects.result(request_id))
        return result is not None

    async def _scatter(self, gather: Gather, collector: Collector) -> None:
        """Asks every member that has not answered; asking twice under the same id is asking once."""
        commands = [gather.generate(m, ROUND) for m in gather.members if m not in collector.answers]
        try:
            await asyncio.gather(*(self._enqueue(command) for command in commands))
        except Overloaded as error:
            raise Retry(error, delay_s=error.retry_after_s or 1.0) from error

    async def _enqueue(self, command: Generate) -> None:
        started_ns = time.perf_counter_ns()
        await self._storage.enqueue(
            subjects.generate(command.priority, command.model, command.request_id),
            command.to_bytes(),
            message_id=command.task_id,
            patience_s=OUTCOME_PATIENCE_S,
        )
        self._mesh.events.publish(
            TaskQueued,
            request_id=command.request_id,
            task_id=command.task_id,
            model=command.model,
            round=command.round,
            priority=command.priority,
            store_duration_ns=time.perf_counter_ns() - started_ns,
        )

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

    async def _conclude(self, gather: Gather, answers: dict[str, Answer], collect_ns: int) -> None:
        started_ns = time.perf_counter_ns()
        given = tuple(answers[member] for member in gather.members if member in answers)
        ballots = read_ballots(given, gather.answer_kind, gather.choices)
        if not ballots.first:
            raise NoAnswers(_why_no_answers(gather, answers))
        options = options_of(gather.answer_kind, gather.choices)
        question = Question(seed=gather.fingerprint, options=options, topic=gather.topic)
        decisions = decide(gather.strategies, ballots, question, self._scores.history)
        decided_ns = time.perf_counter_ns()
        missing = tuple(member for member in gather.members if member not in answers)
        result = Result(
            request_id=gather.request_id,
            fingerprint=gather.fingerprint,
            topology="ensemble",
            text=decisions[0].text,
            answers=given,
            decisions=decisions,
            missing=missing,
            answer_kind=gather.answer_kind,
            choices=gather.choices,
            topic=gather.topic,
            accepted_at_s=gather.accepted_at_s,
            completed_at_s=time.time(),
        )
        stored = await conclude(self._mesh, result)
        stored_ns = time.perf_counter_ns()
        if missing:
            await self._mesh.client.publish(subjects.cancel_signal(gather.request_id))
        if not stored:
            return
        for decision in decisions:
            self._tell_decided(gather, decision, len(missing))
        self._mesh.events.publish(
            GatherCompleted,
            request_id=gather.request_id,
            answered=len(answers),
            missing=len(missing),
            collect_duration_ns=collect_ns,
            decide_duration_ns=decided_ns - started_ns,
            store_duration_ns=stored_ns - decided_ns,
        )

    def _tell_pulled(self, gather: Gather, delivery: Delivery) -> None:
        self._mesh.events.publish(
            GatherPulled,
            request_id=gather.request_id,
            members=gather.members,
            delivery=delivery.count,
            queue_duration_ns=delivery.queue_duration_ns(),
            waiting=delivery.waiting,
        )

    def _tell_decided(self, gather: Gather, decision: Decision, missing: int) -> None:
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
        await conclude(self._mesh, result)
        await self._mesh.client.publish(subjects.cancel_signal(gather.request_id))

    async def refuse(self, request_id: str, error: ChoirError) -> None:
        """Stores an error as the result of a request whose command cannot be read."""
        result = Result.unreadable(request_id, error, time.time())
        await conclude(self._mesh, result)


def _why_no_answers(gather: Gather, answers: dict[str, Answer]) -> str:
    """What kept each member from answering."""
    reasons = [
        f"{member}: {answers[member].error.message}"  # type: ignore[union-attr]
        if member in answers
        else f"{member}: not in time"
        for member in gather.members
    ]
    return "no member of the ensemble has answered (" + "; ".join(reasons) + ")"
