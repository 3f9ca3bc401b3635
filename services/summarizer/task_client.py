"""Has peers do tasks: stores each command, and waits for its answer."""

from __future__ import annotations

from schemas.commands import Generate
from schemas.errors import DeadlineExceeded, error_from_body
from schemas.replies import Answer
from services.chassis.context import ServiceContext
from services.chassis.work.attempts import out_of_time
from services.tasks.stored_replies import StoredReplies, answer_subject
from services.tasks.storing import enqueue_task

LAST_WORD_S = 0.5
"""For a peer that says at the deadline itself that there was no time; a work loop waits longer than that."""


class TaskClient:
    """The tasks of one request, which nobody has worked on before if it is `fresh`.

    `found` counts answers that were there before anybody was asked for them.
    """

    def __init__(self, mesh: ServiceContext, answers: StoredReplies[Answer], *, fresh: bool) -> None:
        self._mesh = mesh
        self._answers = answers
        self._fresh = fresh
        self.found = 0

    def now(self) -> float:
        """When a task is sent, if it is sent now: by the broker's clock."""
        return self._mesh.clock.now()

    async def run(self, task: Generate) -> Answer:
        """The answer of a task; asking twice is asking once.

        Raises the answer's error, naming the step and the model, or Retry if the queue of work is full.
        """
        answer = await self._find(task)
        if answer is None:
            sequence = await enqueue_task(self._mesh, task)
            answer = await self._answer(task, sequence)
        else:
            self.found += 1
        if answer.error is not None:
            failure = error_from_body(answer.error)
            failure.message = f"step {task.round} ({task.model}): {failure.message}"
            raise failure
        return answer

    async def _find(self, task: Generate) -> Answer | None:
        """The answer that another summarizer has had from the peer, if there is one."""
        if not self._fresh:
            await self._answers.look_up([answer_subject(task)])
        return self._answers.get(answer_subject(task))

    async def _answer(self, task: Generate, sequence: int) -> Answer:
        """The answer of the task that is stored at `sequence`.

        Where none comes in time it raises what the last attempt failed with, or DeadlineExceeded if none did.
        """
        subject = answer_subject(task)
        await self._answers.wait([subject], task.deadline_at_s + LAST_WORD_S)
        if (answer := self._answers.get(subject)) is not None:
            return answer
        late = DeadlineExceeded("the time for this request ran out")
        error = await out_of_time(self._mesh.storage, sequence, late)
        error.message = f"step {task.round} ({task.model}): {error.message}"
        raise error
