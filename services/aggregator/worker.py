"""Ensembles: their answers are gathered, every strategy decides from them, and the result is stored once."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable, Mapping

from schemas import subjects
from schemas.commands import Gather
from schemas.errors import ChoirError, NoAnswers
from schemas.events import DecisionMade, GatherCompleted, GatherPulled
from schemas.replies import Answer, Decision, Result
from services.aggregator.decide import Question, context_of, decide, options_of
from services.aggregator.gathering import Gathering
from services.aggregator.reading.ballots import read_ballots
from services.aggregator.scores.store import Scores
from services.aggregator.strategies import Ballots
from services.aggregator.strategies.best_single import best_agent
from services.aggregator.tasks import question_of
from services.aggregator.topics import TopicClassifier
from services.chassis.context import ServiceContext
from services.chassis.work.delivery import Delivery
from services.tasks.result import retell, store_result
from services.tasks.stored_replies import stored_answers


class GatherWorker:
    """Decides ensembles."""

    def __init__(
        self, mesh: ServiceContext, scores: Scores, topics: TopicClassifier, poll_interval_s: float
    ) -> None:
        self._mesh = mesh
        self._storage = mesh.storage
        self._scores = scores
        self._topics = topics
        self._poll_interval_s = poll_interval_s
        self._collecting: dict[str, asyncio.Task[None]] = {}

    def cancel(self, request_id: str) -> None:
        """Nobody waits for this request any more."""
        if (task := self._collecting.get(request_id)) is not None:
            task.cancel()

    async def look_for_cancelled(self) -> None:
        """In case a cancellation was missed: who has a result already waits for no other."""
        for request_id in list(self._collecting):
            if await self._has_result(request_id):
                self.cancel(request_id)

    async def handle(self, gather: Gather, delivery: Delivery) -> None:
        """Brings an ensemble to its result, unless it has one."""
        if not delivery.fresh and await self._has_result(gather.request_id):
            return
        started_ns = time.perf_counter_ns()
        self._tell_pulled(gather, delivery)
        question = self._question(gather)
        poll_interval_s, now = self._poll_interval_s, self._mesh.clock.now
        async with stored_answers(self._storage, gather.request_id, poll_interval_s, now) as answers:
            gathering = Gathering(self._mesh, gather, answers, fresh=delivery.fresh)
            if not await self._collect(gathering, gather, question):
                return
        await self._conclude(gathering, gather, question, time.perf_counter_ns() - started_ns)

    def _question(self, gather: Gather) -> Question:
        topic = gather.topic or self._topics.topic_of(question_of(gather.messages))
        return Question(gather.fingerprint, options_of(gather.answer_kind, gather.choices), topic)

    async def _has_result(self, request_id: str) -> bool:
        stored = await self._storage.last(subjects.RESULTS_STREAM, subjects.result(request_id))
        if stored is not None:
            retell(self._mesh, Result.read(stored.data))
        return stored is not None

    async def _collect(self, gathering: Gathering, gather: Gather, question: Question) -> bool:
        """Gathers the answers of all rounds; False if the request was cancelled meanwhile."""
        context = context_of(question, self._scores.history)
        best = best_agent(gather.members, context, question.options or len(gather.members) + 1)
        task = asyncio.create_task(gathering.run(best))
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

    async def _conclude(
        self, gathering: Gathering, gather: Gather, question: Question, collect_ns: int
    ) -> None:
        started_ns = time.perf_counter_ns()
        given, further = gathering.first, gathering.further
        ballots = read_ballots((*given.values(), *further), gather.answer_kind, gather.choices)
        if not ballots.first:
            raise NoAnswers(_why_no_answers(gather, given, await gathering.why_late()))
        decisions = decide(gather.strategies, ballots, question, self._scores.history)
        decided_ns = time.perf_counter_ns()
        result = Result(
            request_id=gather.request_id,
            fingerprint=gather.fingerprint,
            topology="ensemble",
            text=decisions[0].text,
            answers=_kept(given.values(), ballots, gather),
            decisions=decisions,
            missing=tuple(member for member in gather.members if member not in given),
            further_answers=further,
            answer_kind=gather.answer_kind,
            choices=gather.choices,
            topic=question.topic,
            accepted_at_s=gather.accepted_at_s,
            completed_at_s=self._mesh.clock.now(),
        )
        stored = await store_result(self._mesh, result)
        stored_ns = time.perf_counter_ns()
        if gathering.open_tasks:
            await self._mesh.client.publish(subjects.cancel_signal(gather.request_id))
        if not stored:
            return
        self._scores.learn(ballots.first, question)
        for decision in decisions:
            self._tell_decided(gather, decision, len(result.missing), gathering.rounds)
        self._mesh.events.publish(
            GatherCompleted,
            request_id=gather.request_id,
            rounds=gathering.rounds,
            answered=len(given),
            missing=len(result.missing),
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

    def _tell_decided(self, gather: Gather, decision: Decision, missing: int, rounds: int) -> None:
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
            rounds=rounds,
        )

    async def on_failure(self, gather: Gather, error: ChoirError) -> None:
        """Stores an error as the request's result."""
        result = Result.failed(gather, error, self._mesh.clock.now())
        await store_result(self._mesh, result)
        await self._mesh.client.publish(subjects.cancel_signal(gather.request_id))

    async def on_unreadable(self, request_id: str, error: ChoirError) -> None:
        """Stores an error as the result of a request whose command cannot be read."""
        result = Result.unreadable(request_id, error, self._mesh.clock.now())
        await store_result(self._mesh, result)


def _kept(answers: Iterable[Answer], ballots: Ballots, gather: Gather) -> tuple[Answer, ...]:
    """The answers as the result keeps them: of logprobs that the client did not ask for, what was read."""
    probabilities = {ballot.agent: dict(ballot.probabilities) or None for ballot in ballots.first}
    return tuple(
        answer.model_copy(
            update={
                "logprobs": answer.logprobs if gather.sampling.logprobs else (),
                "option_probabilities": probabilities[answer.agent],
            }
        )
        if answer.logprobs and answer.error is None
        else answer
        for answer in answers
    )


def _why_no_answers(gather: Gather, answers: Mapping[str, Answer], late: Mapping[str, ChoirError]) -> str:
    """What kept each member from answering; `late` is with what an attempt of those ended that did not."""
    reasons = [
        f"{member}: {answers[member].error.message}"  # type: ignore[union-attr]
        if member in answers
        else f"{member}: {late[member].message}; not in time"
        if member in late
        else f"{member}: not in time"
        for member in gather.members
    ]
    return "no member of the ensemble has answered (" + "; ".join(reasons) + ")"
