"""The run of one ensemble, from its command to its one result, in the order in which it happens.

The members are asked, their answers are gathered round after round, and every strategy decides from them.
With an `effort` they are asked in waves, and no more of them than that needs: see `effort/`.
"""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Callable, Iterable, Sequence

from schemas import subjects
from schemas.commands import Gather, Generate
from schemas.ensembles.rounds import (
    OWN_SYNTHESIS,
    PREDICTION,
    QUESTION,
    SAMPLES_FROM,
    SYNTHESIS,
    WITHOUT_LOGPROBS,
)
from schemas.ensembles.strategies import AUTO, Asks, asked_for
from schemas.errors import ChoirError, InternalError, NoAnswers
from schemas.events import DecisionMade, GatherCompleted, GatherPulled
from schemas.replies import Answer, Decision, Result
from services.aggregator.decide import (
    Question,
    context_of,
    decide,
    doubt,
    kept,
    options_of,
    why_no_answers,
    with_confidence,
)
from services.aggregator.effort.cascade import Cascade
from services.aggregator.reading.ballots import decided_calls, read_ballots
from services.aggregator.receipts.giving import Receipts
from services.aggregator.scores.store import Scores
from services.aggregator.strategies import Ballots, StrategyContext
from services.aggregator.strategies.accuracy import best_agent
from services.aggregator.strategies.auto import (
    Chosen,
    auto_choice,
    on_its_way,
    signed,
    way_of,
    widened,
)
from services.aggregator.strategies.rounds.best_single import sampled
from services.aggregator.strategies.rounds.debate import unanimous
from services.aggregator.tasks import (
    comparison_tasks,
    debate_tasks,
    opening_tasks,
    synthesis_task,
    tasks_without_logprobs,
    vector_tasks,
)
from services.aggregator.topics import TopicClassifier
from services.chassis.context import ServiceContext
from services.chassis.work.attempts import last_error
from services.chassis.work.delivery import Delivery
from services.tasks.in_work import RequestsInWork
from services.tasks.stored_replies import StoredReplies, answer_subject, stored_answers, usable
from services.tasks.storing import enqueue_task, has_result, store_result

DECIDE_BEFORE_DEADLINE_S = 0.2
MISPLACED = InternalError("the message that is stored in this answer's place names another task")
FEWEST_DEBATERS = 2
FROM_TEXTS: frozenset[Asks] = frozenset({"synthesis", "own_synthesis", "comparisons", "vectors"})
FROM_ANSWERS: frozenset[Asks] = FROM_TEXTS | {"second_round"}
"""What is asked only when the answers are there: these are waited for until half time."""


class EnsembleHandler:
    """Brings each Gather to its result: by a run, or by the error that ended the run."""

    def __init__(
        self,
        mesh: ServiceContext,
        scores: Scores,
        topics: TopicClassifier,
        poll_interval_s: float,
        receipts: Receipts,
    ) -> None:
        self._receipts = receipts
        self._mesh = mesh
        self._scores = scores
        self._topics = topics
        self._poll_interval_s = poll_interval_s
        self.in_work: RequestsInWork[int] = RequestsInWork(mesh)

    async def handle(self, gather: Gather, delivery: Delivery) -> None:
        """Brings an ensemble to its result, unless it has one or is cancelled."""
        if not delivery.fresh and await has_result(self._mesh, gather.request_id):
            return
        started_ns = time.perf_counter_ns()
        self._emit_pulled(gather, delivery)
        topic = gather.topic or self._topics.topic_of(gather.question)
        seed = gather.lots or gather.fingerprint
        question = Question(seed, options_of(gather.answer_kind, gather.choices), topic)
        storage, now = self._mesh.storage, self._mesh.clock.now
        async with stored_answers(storage, gather.request_id, self._poll_interval_s, now) as answers:
            ensemble = Ensemble(
                self._mesh,
                gather,
                question,
                self._scores,
                answers,
                fresh=delivery.fresh,
                receipts=self._receipts,
            )
            gathered_ns = await self.in_work.run(gather.request_id, ensemble.gather(started_ns))
        if gathered_ns is not None:
            await ensemble.finish(gathered_ns)

    def _emit_pulled(self, gather: Gather, delivery: Delivery) -> None:
        self._mesh.events.publish(
            GatherPulled,
            request_id=gather.request_id,
            members=gather.members,
            delivery=delivery.count,
            queue_duration_ns=delivery.queue_duration_ns(),
            waiting=delivery.waiting,
        )

    async def on_failure(self, gather: Gather, error: ChoirError) -> None:
        """Stores an error as the request's result."""
        await store_result(self._mesh, Result.failed(gather, error, self._mesh.clock.now()))
        await self._mesh.client.publish(subjects.cancel_signal(gather.request_id))

    async def on_unreadable(self, request_id: str, error: ChoirError) -> None:
        """Stores an error as the result of a request whose command cannot be read."""
        await store_result(self._mesh, Result.unreadable(request_id, error, self._mesh.clock.now()))


class Ensemble:
    """What is asked, answered and decided for one Gather.

    Every task has its place in ANSWERS, so an aggregator that takes over (`fresh` is False) finds what is
    there and asks only for the rest, in whichever round the one before died. All rounds share the deadline.
    """

    def __init__(
        self,
        mesh: ServiceContext,
        gather: Gather,
        question: Question,
        scores: Scores,
        answers: StoredReplies[Answer],
        *,
        fresh: bool,
        receipts: Receipts,
    ) -> None:
        self._mesh = mesh
        self._requested = gather
        self._question = question
        self._scores = scores
        self._answers = answers
        self._fresh = fresh
        self._receipts = receipts
        self._until_s = gather.deadline_at_s - DECIDE_BEFORE_DEADLINE_S
        self._chosen = way_of(gather, self._context()) if gather.strategies == (AUTO,) else None
        self._gather = gather = gather if self._chosen is None else on_its_way(gather, self._chosen)
        self._asks = asked_for(gather.strategies)
        self._asked: dict[str, Generate] = {}
        self._sequences: dict[str, int] = {}
        self._rounds = 1
        self._made_of = False
        self._cascade: Cascade | None = None
        if gather.effort is not None:
            self._cascade = Cascade(gather, self._context(), mesh.clock.now)

    def _context(self) -> StrategyContext:
        return context_of(self._question, self._scores.history)

    # --- gathering ----------------------------------------------------------------------

    async def gather(self, started_ns: int) -> int:
        """Asks and waits, round after round, until all that is needed is there or the time is over.

        Gives how many nanoseconds have passed since `started_ns`.
        """
        if self._cascade is not None:
            await self._cascade.run(self, self._until_s)
            return time.perf_counter_ns() - started_ns
        await self._ask(opening_tasks(self._gather, self._best() if "samples" in self._asks else None))
        question = self._places(QUESTION)
        if self._chosen is not None and self._chosen.way in ("single", "samples"):
            await self._wait(question, self._half_time_s())
            await self._ask_all_instead(self._chosen)
            question = self._places(QUESTION)
        if self._asks & FROM_ANSWERS:
            await self._wait(question, self._half_time_s())
            await self._ask_without_logprobs()
            await self._ask_of_answers()
        await self._wait(question, self._until_s)
        await self._ask_without_logprobs()
        await self._ask_of_answers()
        await self._wait(self._places(PREDICTION), self._until_s)
        await self._answers.wait(self._places(SAMPLES_FROM, sys.maxsize), self._until_s)
        return time.perf_counter_ns() - started_ns

    async def _ask_all_instead(self, chosen: Chosen) -> None:
        """Where the one agent that was chosen has given no answer that can be read by half time: asks all."""
        ballots = self._read_ballots()
        if any(ballot.answer is not None for ballot in (*ballots.first, *ballots.samples)):
            return
        self._chosen = widened(self._requested, chosen)
        self._gather = on_its_way(self._requested, self._chosen)
        self._asked = {place: task for place, task in self._asked.items() if task.round == QUESTION}
        await self._ask(opening_tasks(self._gather, None))

    def _best(self) -> str | None:
        """The member that has been right most often; None if nobody knows."""
        context = self._context()
        options = self._question.options or len(self._gather.members) + 1
        return best_agent(self._gather.members, context, options)

    async def _ask(self, tasks: Sequence[Generate]) -> list[str]:
        """Asks for what is not answered yet. Gives the places of the answers."""
        places = {answer_subject(task): task for task in tasks}
        self._asked |= places
        if not self._fresh:
            await self._answers.look_up(places)
        unanswered = [task for place, task in places.items() if self._answers.get(place) is None]
        sequences = await asyncio.gather(*(enqueue_task(self._mesh, task) for task in unanswered))
        for task, sequence in zip(unanswered, sequences, strict=True):
            if task.round == QUESTION:
                self._sequences[task.agent] = sequence
        return list(places)

    def _places(self, round_: int, last: int | None = None) -> list[str]:
        """Where the answers of one round are, or of all from `round_` to `last`."""
        return [place for place, task in self._asked.items() if round_ <= task.round <= (last or round_)]

    async def _wait(self, places: Sequence[str], until_s: float) -> None:
        quorum = min(self._gather.quorum or len(places), len(places))
        await self._answers.wait(places, until_s, usable(quorum))

    def _half_time_s(self) -> float:
        """Until when the first round is waited for where a second may follow; the same for any aggregator."""
        return (self._gather.accepted_at_s + self._until_s) / 2

    async def _ask_without_logprobs(self) -> None:
        refused = tasks_without_logprobs(self._gather, self._of_round(QUESTION))
        again = [task for task in refused if answer_subject(task) not in self._asked]
        if again:
            await self._wait(await self._ask(again), self._until_s)

    async def _debate(self) -> None:
        """Holds a second round if there is something to debate, and time for it; once."""
        if self._rounds > 1:
            return
        ballots = self._read_ballots().first
        if len(ballots) < FEWEST_DEBATERS or unanimous(ballots) or self._mesh.clock.now() >= self._until_s:
            return
        tasks = debate_tasks(self._gather, self._first())
        self._rounds += 1
        await self._wait(await self._ask(tasks), self._until_s)

    async def _ask_of_answers(self) -> None:
        """Asks what answers are needed for, where a strategy wants it; once, as soon as two have answered."""
        if not self._made_of:
            await self._ask_of_texts()
        if "second_round" in self._asks:
            await self._debate()

    async def _ask_of_texts(self) -> None:
        """Has one answer written from all, or all compared."""
        if not self._asks & FROM_TEXTS:
            return
        ballots = self._read_ballots()
        if len(ballots.first) < min(FEWEST_DEBATERS, len(self._gather.members)):
            return
        self._made_of = True
        tasks: list[Generate] = []
        if "synthesis" in self._asks:
            writer = self._gather.synthesizer or self._best() or ballots.first[0].agent
            tasks += synthesis_task(self._gather, writer, SYNTHESIS, ballots.first)
        if "comparisons" in self._asks:
            tasks += comparison_tasks(self._gather, ballots.first)
        if "vectors" in self._asks:
            tasks += vector_tasks(
                self._gather, self._gather.embedder or ballots.first[0].agent, ballots.first
            )
        if "own_synthesis" in self._asks:
            await self._answers.wait(self._places(SAMPLES_FROM, SYNTHESIS - 1), self._half_time_s())
            ballots = self._read_ballots()
            if best := sampled(ballots.samples):
                own = [ballot for ballot in (*ballots.first, *ballots.samples) if ballot.agent == best]
                tasks += synthesis_task(self._gather, best, OWN_SYNTHESIS, own)
        if self._mesh.clock.now() < self._until_s:
            await self._ask(tasks)

    # --- asking in waves, as a cascade has it ---------------------------------------------

    async def asked_before(self) -> list[str]:
        """The members that another aggregator has asked: there are answers of theirs, or tasks for them."""
        if self._fresh:
            return []
        places = {answer_subject(task): task for task in self._tasks().values()}
        await self._answers.look_up(places)
        silent = [task for place, task in places.items() if self._answers.get(place) is None]
        queued = await asyncio.gather(*(self._is_queued(task) for task in silent))
        unasked = {task.agent for task, is_queued in zip(silent, queued, strict=True) if not is_queued}
        return [member for member in self._gather.members if member not in unasked]

    async def _is_queued(self, task: Generate) -> bool:
        place = subjects.generate(task.priority, task.model, task.request_id)
        return await self._mesh.storage.last(subjects.COMMANDS_STREAM, place) is not None

    async def ask(self, members: Sequence[str]) -> None:
        """Asks members that have not answered."""
        tasks = self._tasks()
        await self._ask([tasks[member] for member in members])

    async def wait(self, until_s: float, enough: Callable[[], bool]) -> None:
        """Returns when all that were asked have answered, when it is `enough`, or at `until_s`."""
        await self._answers.wait(self._places(QUESTION), until_s, lambda _: enough())

    def answered(self) -> dict[str, Answer]:
        """The answers to the question, by member."""
        return self._first()

    def ballots(self) -> Ballots:
        """What was read from the answers that there are."""
        return self._read_ballots()

    def _tasks(self) -> dict[str, Generate]:
        return {task.agent: task for task in opening_tasks(self._gather, None)}

    # --- what there is ------------------------------------------------------------------

    def _of_round(self, round_: int) -> dict[str, Answer]:
        """The answers of one round, by agent."""
        return {answer.agent: answer for answer in self._at(self._places(round_))}

    def _at(self, places: Iterable[str]) -> list[Answer]:
        """The answers that are there of those in `places`: each counts for the task at whose place it is."""
        found = ((self._asked[place], self._answers.get(place)) for place in places)
        return [
            answer if _is_of(answer, task) else Answer.failed(task, MISPLACED, answer.instance)
            for task, answer in found
            if answer is not None
        ]

    def _first(self) -> dict[str, Answer]:
        """The answers to the question; of who gave none for want of logprobs, that without them."""
        answers, again = self._of_round(QUESTION), self._of_round(WITHOUT_LOGPROBS)
        counted = None if self._cascade is None else self._cascade.counted
        return {
            m: again.get(m, answers[m])
            for m in self._gather.members
            if m in answers and (counted is None or m in counted)
        }

    def _further(self) -> tuple[Answer, ...]:
        first = (QUESTION, WITHOUT_LOGPROBS)
        return tuple(self._at(place for place, task in self._asked.items() if task.round not in first))

    def _read_ballots(self) -> Ballots:
        """The ballots of all answers that there are."""
        answers = (*self._first().values(), *self._further())
        return read_ballots(answers, self._gather.answer_kind, self._gather.choices)

    # --- deciding -----------------------------------------------------------------------

    async def finish(self, gathered_ns: int) -> None:
        """Decides from what is there, stores the result, and learns. Raises NoAnswers."""
        started_ns = time.perf_counter_ns()
        ballots = self._read_ballots()
        if not ballots.first:
            raise NoAnswers(why_no_answers(self._gather, self._first(), await self._why_late()))
        decisions = self._decide(ballots)
        decided_ns = time.perf_counter_ns()
        result = self._result(ballots, decisions)
        if self._requested.receipt:
            result = self._receipts.with_receipt(
                result, self._requested, self._question, self._scores.history
            )
        stored = await store_result(self._mesh, result)
        stored_ns = time.perf_counter_ns()
        if len(self._at(self._asked)) < len(self._asked):
            await self._mesh.client.publish(subjects.cancel_signal(self._gather.request_id))
        if stored:
            if self._cascade is None:  # whom a cascade asks depends on what others said: no fair sample
                self._scores.learn(ballots.first, self._question)
            self._emit_decided(result)
            self._emit_completed(result, gathered_ns, decided_ns - started_ns, stored_ns - decided_ns)

    def _decide(self, ballots: Ballots) -> tuple[Decision, ...]:
        history = self._scores.history
        if self._cascade is not None and self._cascade.decisions and not self._requested.receipt:
            decisions = self._cascade.decisions
        else:
            decisions = decide(self._gather.strategies, ballots, self._question, history)
        if self._chosen is not None:
            decisions = signed(decisions, self._chosen)
        if self._gather.min_confidence is None:
            return decisions
        return with_confidence(decisions, ballots.first, self._context())

    async def _why_late(self) -> dict[str, ChoirError]:
        """For each member without an answer to the question what its last attempt ended with, if one did."""
        late = {m: sequence for m, sequence in self._sequences.items() if m not in self._first()}
        errors = await asyncio.gather(*(last_error(self._mesh.storage, late[m]) for m in late))
        return {member: error for member, error in zip(late, errors, strict=True) if error is not None}

    def _result(self, ballots: Ballots, decisions: tuple[Decision, ...]) -> Result:
        gather, first = self._gather, self._first()
        cascade = None if self._cascade is None else self._cascade.told(first.values())
        spared = () if cascade is None else cascade.spared
        undecided = doubt(decisions[0], gather.min_confidence)
        calls = () if undecided else decided_calls(decisions[0], first.values())
        return Result(
            request_id=gather.request_id,
            fingerprint=gather.fingerprint,
            topology="ensemble",
            text=None if undecided else "" if calls else decisions[0].text,
            error=undecided and undecided.body(gather.request_id),
            tool_calls=calls,
            answers=kept(first.values(), ballots, gather),
            decisions=decisions,
            missing=tuple(m for m in gather.members if m not in first and m not in spared),
            further_answers=self._further(),
            answer_kind=gather.answer_kind,
            choices=gather.choices,
            topic=self._question.topic,
            accepted_at_s=gather.accepted_at_s,
            completed_at_s=self._mesh.clock.now(),
            cascade=cascade,
            auto=None if self._chosen is None else auto_choice(self._chosen, self._question.topic),
        )

    def _emit_decided(self, result: Result) -> None:
        for decision in result.decisions:
            self._mesh.events.publish(
                DecisionMade,
                request_id=result.request_id,
                strategy=decision.strategy,
                agents=len(self._gather.members),
                abstained=len(decision.abstained),
                missing=len(result.missing),
                share=decision.share,
                margin=decision.margin,
                tie=decision.tie,
                rounds=self._rounds,
                confidence=decision.confidence,
            )

    def _emit_completed(self, result: Result, collect_ns: int, decide_ns: int, store_ns: int) -> None:
        cascade = result.cascade
        self._mesh.events.publish(
            GatherCompleted,
            request_id=result.request_id,
            rounds=self._rounds,
            answered=len(result.answers),
            missing=len(result.missing),
            collect_duration_ns=collect_ns,
            decide_duration_ns=decide_ns,
            store_duration_ns=store_ns,
            effort=None if cascade is None else cascade.effort,
            waves=1 if cascade is None else len(cascade.waves),
            saved_calls=0 if cascade is None else cascade.saved_calls,
            saved_tokens=0 if cascade is None else cascade.saved_tokens,
            bound=None if cascade is None else cascade.bound,
        )


def _is_of(answer: Answer, task: Generate) -> bool:
    """Whether an answer names the task at whose place it is: who may write one may not vote for all."""
    return (answer.request_id, answer.round, answer.agent) == (task.request_id, task.round, task.agent)
