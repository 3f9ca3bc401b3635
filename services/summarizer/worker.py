"""The handler of `Summarize`: takes a request along its chain, and stores the one result."""

from __future__ import annotations

import asyncio

from schemas import subjects
from schemas.commands import Summarize
from schemas.errors import ChoirError, PayloadTooLarge
from schemas.replies import Answer, Result
from services.chassis.context import ServiceContext
from services.chassis.registry.directory import Directory
from services.chassis.work.delivery import Delivery
from services.summarizer.chain import Chain
from services.summarizer.settings import SummarizerSection
from services.summarizer.steps import StepRecord, chain_steps
from services.summarizer.task_client import TaskClient
from services.tasks.in_work import RequestsInWork
from services.tasks.stored_replies import stored_answers
from services.tasks.storing import has_result, store_result


class ChainWorker:
    """Takes requests along their chains."""

    def __init__(self, mesh: ServiceContext, directory: Directory, settings: SummarizerSection) -> None:
        self._mesh = mesh
        self._storage = mesh.storage
        self._directory = directory
        self._settings = settings
        self.in_work: RequestsInWork[list[StepRecord]] = RequestsInWork(mesh)

    async def handle(self, command: Summarize, delivery: Delivery) -> None:
        """Brings a chain to its result, unless it has one."""
        if not delivery.fresh and await has_result(self._mesh, command.request_id):
            return
        poll_interval_s, now = self._settings.poll_interval_s, self._mesh.clock.now
        async with stored_answers(self._storage, command.request_id, poll_interval_s, now) as answers:
            chain = Chain(
                self._mesh,
                self._directory,
                TaskClient(self._mesh, answers, fresh=delivery.fresh),
                command,
                delivery=delivery.count,
                max_parts=self._settings.max_parts,
            )
            records = await self.in_work.run(command.request_id, chain.walk())
        if records is not None:
            await store_result(self._mesh, result_of(command, records, self._mesh.clock.now()))

    async def on_failure(self, command: Summarize, error: ChoirError) -> None:
        """Stores an error as the result, with what the peers have written before it if that fits."""
        now_s = self._mesh.clock.now()
        try:
            result = Result.failed(command, error, now_s, await self._written(command))
            await store_result(self._mesh, result)
        except PayloadTooLarge:
            await store_result(self._mesh, Result.failed(command, error, now_s))
        await self._mesh.client.publish(subjects.cancel_signal(command.request_id))

    async def _written(self, command: Summarize) -> tuple[Answer, ...]:
        """The answer of each step that there is one of."""
        stored = await asyncio.gather(
            *(
                self._storage.last(subjects.ANSWERS_STREAM, subjects.answer(command.request_id, step, peer))
                for step, peer in enumerate(command.peers, start=1)
            )
        )
        return tuple(Answer.read(answer.data) for answer in stored if answer is not None)

    async def on_unreadable(self, request_id: str, error: ChoirError) -> None:
        """Stores an error as the result of a request whose command cannot be read."""
        await store_result(self._mesh, Result.unreadable(request_id, error, self._mesh.clock.now()))


def result_of(command: Summarize, records: list[StepRecord], at_s: float) -> Result:
    """The result of a chain that has reached its end at `at_s`."""
    return Result(
        request_id=command.request_id,
        fingerprint=command.fingerprint,
        topology="chain",
        text=records[-1].answer.text,
        answers=tuple(record.answer for record in records),
        steps=chain_steps(records),
        accepted_at_s=command.accepted_at_s,
        completed_at_s=at_s,
    )
