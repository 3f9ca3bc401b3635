"""One ensemble's rounds: asks the agents what its strategies need, and collects the answers."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence

from schemas import subjects
from schemas.commands import Gather, Generate
from schemas.errors import ChoirError, Overloaded
from schemas.events import TaskQueued
from schemas.replies import Answer
from schemas.rounds import PREDICTION, QUESTION, SAMPLES_FROM, WITHOUT_LOGPROBS
from schemas.strategies import asked_for
from services.aggregator.reading.ballots import read_ballots
from services.aggregator.strategies.debate import unanimous
from services.aggregator.tasks import debate_tasks, opening_tasks, tasks_without_logprobs
from services.chassis.context import ServiceContext
from services.chassis.nats.streams import OUTCOME_PATIENCE_S
from services.chassis.work.attempts import last_error
from services.chassis.work.delivery import Retry
from services.tasks.stored_replies import StoredReplies, answer_subject, usable

DECIDE_BEFORE_DEADLINE_S = 0.2
FEWEST_DEBATERS = 2


class Gathering:
    """What is asked and answered for one Gather.

    Every task has its place in ANSWERS, so an aggregator that takes over (`fresh` is False) finds what is
    there and asks only for the rest, in whichever round the one before died. All rounds share the deadline.
    """

    def __init__(
        self,
        mesh: ServiceContext,
        gather: Gather,
        answers: StoredReplies[Answer],
        *,
        fresh: bool,
    ) -> None:
        self._mesh = mesh
        self._gather = gather
        self._answers = answers
        self._fresh = fresh
        self._until_s = gather.deadline_at_s - DECIDE_BEFORE_DEADLINE_S
        self._asked: list[Generate] = []
        self._sequences: dict[str, int] = {}
        self.rounds = 1

    async def why_late(self) -> dict[str, ChoirError]:
        """For each member without an answer to the question what its last attempt ended with, if one did."""
        late = {m: self._sequences[m] for m in self._sequences if m not in self.first}
        errors = await asyncio.gather(*(last_error(self._mesh.storage, late[m]) for m in late))
        return {member: error for member, error in zip(late, errors, strict=True) if error is not None}

    @property
    def first(self) -> dict[str, Answer]:
        """The answers to the question, in the members' order; of who gave none because it can say no
        logprobs, that without them."""
        answers, again = self._of_round(QUESTION), self._of_round(WITHOUT_LOGPROBS)
        return {m: again.get(m, answers[m]) for m in self._gather.members if m in answers}

    @property
    def further(self) -> tuple[Answer, ...]:
        """The answers of other rounds, in the order in which they were asked for."""
        tasks = [task for task in self._asked if task.round not in (QUESTION, WITHOUT_LOGPROBS)]
        return tuple(answer for task in tasks if (answer := self._answer_of(task)) is not None)

    @property
    def open_tasks(self) -> int:
        """How many tasks were asked for and have not been answered."""
        return sum(self._answer_of(task) is None for task in self._asked)

    def _of_round(self, round_: int) -> dict[str, Answer]:
        """The answers of one round, by agent."""
        tasks = [task for task in self._asked if task.round == round_]
        return {task.agent: answer for task in tasks if (answer := self._answer_of(task)) is not None}

    def _answer_of(self, task: Generate) -> Answer | None:
        return self._answers.get(answer_subject(task))

    async def run(self, best: str | None) -> None:
        """Asks and waits, round after round, until all that is needed is there or the time is over."""
        opening = opening_tasks(self._gather, best)
        question = [task for task in opening if task.round == QUESTION]
        predictions = [task for task in opening if task.round == PREDICTION]
        samples = [task for task in opening if task.round >= SAMPLES_FROM]
        await self._ask(opening)
        if "second_round" in asked_for(self._gather.strategies):
            await self._wait(question, self._half_time_s())
            await self._ask_without_logprobs()
            await self._debate()
        await self._wait(question, self._until_s)
        await self._ask_without_logprobs()
        if "second_round" in asked_for(self._gather.strategies):
            await self._debate()
        await self._wait(predictions, self._until_s)
        await self._answers.wait([answer_subject(task) for task in samples], self._until_s)

    def _half_time_s(self) -> float:
        """Until when the first round is waited for where a second may follow; the same for any aggregator."""
        return (self._gather.accepted_at_s + self._until_s) / 2

    async def _ask_without_logprobs(self) -> None:
        refused = tasks_without_logprobs(self._gather, self._of_round(QUESTION))
        again = [task for task in refused if task not in self._asked]
        if again:
            await self._ask(again)
            await self._wait(again, self._until_s)

    async def _debate(self) -> None:
        """Holds a second round if there is something to debate, and time for it; once."""
        if self.rounds > 1:
            return
        given = self.first
        ballots = read_ballots(given.values(), self._gather.answer_kind, self._gather.choices).first
        if len(ballots) < FEWEST_DEBATERS or unanimous(ballots) or self._mesh.clock.now() >= self._until_s:
            return
        tasks = debate_tasks(self._gather, given)
        self.rounds += 1
        await self._ask(tasks)
        await self._wait(tasks, self._until_s)

    async def _wait(self, tasks: Sequence[Generate], until_s: float) -> None:
        quorum = min(self._gather.quorum or len(tasks), len(tasks))
        await self._answers.wait([answer_subject(task) for task in tasks], until_s, usable(quorum))

    async def _ask(self, tasks: Sequence[Generate]) -> None:
        """Asks for what is not answered yet; asking twice under the same id is asking once."""
        self._asked += tasks
        if not self._fresh:
            await self._answers.look_up([answer_subject(task) for task in tasks])
        open_tasks = [task for task in tasks if self._answer_of(task) is None]
        try:
            await asyncio.gather(*(self._enqueue(task) for task in open_tasks))
        except Overloaded as error:
            raise Retry(error, delay_s=error.retry_after_s or 1.0) from error

    async def _enqueue(self, command: Generate) -> None:
        started_ns = time.perf_counter_ns()
        receipt = await self._mesh.storage.enqueue(
            subjects.generate(command.priority, command.model, command.request_id),
            command.to_bytes(),
            message_id=command.task_id,
            patience_s=OUTCOME_PATIENCE_S,
        )
        if command.round == QUESTION:
            self._sequences[command.agent] = receipt.sequence
        self._mesh.events.publish(
            TaskQueued,
            request_id=command.request_id,
            task_id=command.task_id,
            model=command.model,
            round=command.round,
            priority=command.priority,
            store_duration_ns=time.perf_counter_ns() - started_ns,
        )
