"""One question of a batch to one model, under an id that is the same whenever the batch is run again."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

from schemas.errors import Overloaded
from schemas.replies import Answer
from services.cli.batch.models import Models
from services.cli.batch.records import Reply, TaskTimings
from services.cli.batch.stopwatch import Stopwatch
from services.client.bulk.bounded import Gate
from services.client.bulk.runner import until_taken
from services.client.client import Choir
from services.client.request_builder import AskOptions

OVERLOAD_PATIENCE_S = 600.0
"""How long a full mesh is asked again before the task fails."""
RETRY_AFTER_S = 1.0
MAX_RETRY_AFTER_S = 10.0


@dataclass(frozen=True, slots=True)
class Inquiry:
    """Whose questions these are: the batch's run, the model, the attempt, the sampler's options; and how long
    they are on their way."""

    run: str
    model: str
    attempt: int
    options: AskOptions
    asking: Stopwatch

    def request_id(self, text: str) -> str:
        """The same question of the same batch to the same model has the same id."""
        asked = "\0".join((self.run, self.model, str(self.attempt), text))
        return f"batch-{hashlib.sha256(asked.encode()).hexdigest()[:40]}"


@dataclass(frozen=True, slots=True)
class Reading:
    """What came of one text: the answer, and what it took."""

    reply: Reply
    timings: TaskTimings
    parts: int = 1


class Questions:
    """Asks the mesh, as much at once as the models have room for.

    A full mesh is asked again after a while; other errors are raised.
    """

    def __init__(self, mesh: Choir, models: Models) -> None:
        self._mesh = mesh
        self._models = models
        self._gate = Gate(models.room)

    async def ask(self, inquiry: Inquiry, text: str) -> Reading:
        """The answer of the inquiry's model to one text."""
        async with self._gate:
            return await until_taken(
                lambda: self._ask(inquiry, text),
                {Overloaded: OVERLOAD_PATIENCE_S},
                pause_s=RETRY_AFTER_S,
                longest_pause_s=MAX_RETRY_AFTER_S,
            )

    async def _ask(self, inquiry: Inquiry, text: str) -> Reading:
        options: AskOptions = {
            **inquiry.options,
            "model": inquiry.model,
            "request_id": inquiry.request_id(text),
            "priority": "batch",
        }
        with inquiry.asking.running():
            result = await self._mesh.ask(text, **options)
        answer = result.answers[0]
        reply = Reply(model=answer.model, instance=answer.instance, response=result.text or "")
        return Reading(reply, timings_of(answer))


def timings_of(answer: Answer) -> TaskTimings:
    """An answer's own timings, in seconds."""
    timings = answer.timings
    return TaskTimings(
        queue_s=timings.queue_duration_ns / 1e9,
        generation_s=timings.eval_duration_ns / 1e9,
        prompt_tokens=answer.prompt_tokens,
        generated_tokens=answer.generated_tokens,
    )
