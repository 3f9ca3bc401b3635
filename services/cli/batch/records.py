"""The record of a task: one document, one prompt, one answer or the reason why there is none."""

from __future__ import annotations

from schemas.errors import ErrorBody
from schemas.message import Struct


class TaskTimings(Struct):
    """Sums over all questions of a task; `total_s` is the time in which one of them was on its way, from when
    it was sent until its answer came. Waiting in the client is not in it."""

    total_s: float = 0.0
    queue_s: float = 0.0
    generation_s: float = 0.0
    prompt_tokens: int = 0
    generated_tokens: int = 0

    @property
    def tokens_per_s(self) -> float | None:
        """Generated tokens for each second of generation; None where nothing was generated."""
        return (
            self.generated_tokens / self.generation_s if self.generation_s and self.generated_tokens else None
        )


class Reply(Struct):
    """Who answered, and what."""

    model: str
    instance: str
    response: str


class TaskRecord(Struct):
    """One line of the results. `parts` is how many passages the document was read in."""

    file: str
    prompt: str
    success: bool
    response: Reply | None = None
    error: ErrorBody | None = None
    parts: int = 1
    attempt: int = 1
    timings: TaskTimings = TaskTimings()
