"""A batch at work: every task once, its record on disk when it is done, the results at the end."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import aclosing, asynccontextmanager
from typing import Any

from schemas.errors import ChoirError, MeshUnreachable
from services.chassis.identity import new_id
from services.chassis.process.cancelling import ended
from services.cli.batch.documents.cache import Shelf
from services.cli.batch.documents.map_reduce import Reader
from services.cli.batch.journal import Asked, BatchJournal, Head
from services.cli.batch.models import Models
from services.cli.batch.outputs import Totals, write_outputs
from services.cli.batch.plan import BatchTask, Plan
from services.cli.batch.questions import Inquiry, Questions
from services.cli.batch.records import TaskRecord, TaskTimings
from services.cli.batch.stopwatch import Stopwatch
from services.client.bulk.runner import run_bulk
from services.client.client import Choir

DEFAULT_MAX_TOKENS = 256


class BatchRun:
    """One run of a batch. What an earlier run of it has answered is not asked again."""

    def __init__(self, plan: Plan, mesh: Choir, journal: BatchJournal) -> None:
        self._plan = plan
        self._journal = journal
        self._models = Models(mesh, plan.models, plan.max_concurrent)
        questions = Questions(mesh, self._models)
        self._reader = Reader(questions, self._models, plan.options.get("max_tokens", DEFAULT_MAX_TOKENS))
        self._shelf = Shelf()
        self._started_s = time.monotonic()
        self.left = sum(not journal.is_done(task.key) for task in plan.tasks())

    @property
    def seconds(self) -> float:
        """How long this run has taken so far."""
        return time.monotonic() - self._started_s

    @property
    def seconds_before(self) -> float:
        """How long the runs before it took together."""
        return self._journal.seconds_before

    async def check(self) -> None:
        """Raises UnknownModel for a model that is wanted and not there."""
        await self._models.require_all()

    async def work(self, on_done: Callable[[TaskRecord], None]) -> None:
        """Does what is left, after `check`. MeshUnreachable if the mesh goes; what is done is kept."""
        done = run_bulk(self._plan.tasks(), self._do, self._journal, lambda task: task.key, self._models.room)
        async with self._watched(), aclosing(done):
            async for record in done:
                self.left -= 1
                on_done(record)

    def write_results(self) -> Totals:
        """Writes the outputs with all that is done so far, by this run and those before it."""
        seconds = self.seconds_before + self.seconds
        totals = Totals.of((record for record, _ in self._records()), len(self._plan), seconds)
        write_outputs(self._plan.outputs, totals, self._records)
        self._journal.note_time(seconds)
        return totals

    def failures(self) -> Iterator[TaskRecord]:
        """The records of tasks that have failed."""
        return (record for record, _ in self._records() if not record.success)

    def _records(self) -> Iterator[tuple[TaskRecord, str]]:
        for task in self._plan.tasks():
            if (record := self._journal.record(task.key)) is not None:
                yield record, task.prompt.template

    @asynccontextmanager
    async def _watched(self) -> AsyncIterator[None]:
        """Keeps an eye on the models; losing the mesh is noticed by the questions themselves."""
        watcher = asyncio.create_task(self._models.watch())
        try:
            yield
        finally:
            await ended([watcher])
            with contextlib.suppress(asyncio.CancelledError, ChoirError):
                await watcher

    async def _do(self, task: BatchTask) -> TaskRecord:
        """One task, to its record."""
        asking = Stopwatch()
        record = TaskRecord(file=task.document.name, prompt=task.prompt.name, success=False)
        try:
            async with self._shelf.holding(task.document) as text:
                found = await self._read(task, await text, asking)
        except MeshUnreachable:
            raise
        except ChoirError as error:
            found = {"error": error.body(), "timings": TaskTimings()}
        found["timings"] = found["timings"].model_copy(update={"total_s": asking.seconds})
        asked = self._journal.asked.get(task.key)
        return record.model_copy(update={**found, "attempt": asked.attempt if asked else 1})

    async def _read(self, task: BatchTask, text: str, asking: Stopwatch) -> dict[str, Any]:
        """What the record of an answered task has."""
        asked = self._assigned(task)
        inquiry = Inquiry(self._journal.head.run, asked.model, asked.attempt, self._plan.options, asking)
        with self._models.asking(asked.model):
            reading = await self._reader.read(inquiry, task.prompt, task.document.name, text)
        return {
            "success": True,
            "response": reading.reply,
            "parts": reading.parts,
            "timings": reading.timings,
        }

    def _assigned(self, task: BatchTask) -> Asked:
        """The model that answers, and the attempt: as before a crash, anew after a failure."""
        before = self._journal.asked.get(task.key)
        if before and not self._journal.failed(task.key) and self._models.serves(before.model):
            return before
        attempt = before.attempt + 1 if before else 1
        asked = Asked(task=task.key, model=self._models.next(), attempt=attempt)
        self._journal.note_asked(asked)
        return asked


def new_head(plan: Plan) -> Head:
    """The head of a batch that begins now."""
    return Head(run=new_id(), started_at_s=time.time(), settings=plan.settings)
