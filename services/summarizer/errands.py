"""Has peers do tasks: stores each command, and waits for its answer."""

from __future__ import annotations

import time

from schemas import subjects
from schemas.commands import Generate
from schemas.errors import Overloaded, error_from_body
from schemas.events import TaskQueued
from schemas.replies import Answer
from services.chassis.delivery import Retry
from services.chassis.service import Mesh
from services.chassis.storage import OUTCOME_PATIENCE_S
from services.summarizer.answers import AnswerInbox


class Errands:
    """The tasks of one request. `found` counts answers that were there before anybody was asked for them."""

    def __init__(self, mesh: Mesh, inbox: AnswerInbox) -> None:
        self._mesh = mesh
        self._inbox = inbox
        self.found = 0

    def now(self) -> float:
        """When a task is sent, if it is sent now: by the broker's clock."""
        return self._mesh.clock.now()

    async def run(self, task: Generate) -> Answer:
        """The answer of a task; asking twice is asking once.

        Raises the answer's error, naming the step and the model, or Retry if the queue of work is full.
        """
        answer = self._inbox.get(task)
        if answer is None:
            await self._store(task)
            answer = await self._inbox.wait(task)
        else:
            self.found += 1
        if answer.error is not None:
            failure = error_from_body(answer.error)
            failure.message = f"step {task.round} ({task.model}): {failure.message}"
            raise failure
        return answer

    async def _store(self, task: Generate) -> None:
        subject = subjects.generate(task.priority, task.model, task.request_id)
        started_ns = time.perf_counter_ns()
        try:
            await self._mesh.storage.enqueue(
                subject, task.to_bytes(), message_id=task.task_id, patience_s=OUTCOME_PATIENCE_S
            )
        except Overloaded as error:
            raise Retry(error, delay_s=error.retry_after_s or 1.0) from error
        self._mesh.events.publish(
            TaskQueued,
            request_id=task.request_id,
            task_id=task.task_id,
            model=task.model,
            round=task.round,
            priority=task.priority,
            store_duration_ns=time.perf_counter_ns() - started_ns,
        )
