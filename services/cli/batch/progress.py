"""How far a batch is, on standard error: the tasks that are done, and a line for each file that failed."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from schemas.errors import ErrorBody
from services.cli.batch.records import TaskRecord
from services.client.bulk.progress import reporter


@contextmanager
def progress(total: int, done: int) -> Iterator[Callable[[TaskRecord], None]]:
    """Shows the progress of a batch of `total` tasks of which `done` were done before; takes the record of
    each that is done in this run."""
    report, failures = reporter(), Failures()
    with report.phase("tasks", total, done) as advance:

        def note(record: TaskRecord) -> None:
            if failure := failures.line(record):
                report.say(failure)
            advance(record.error is not None)

        yield note


class Failures:
    """Failed tasks: a line for each file and reason, however many prompts it concerns."""

    def __init__(self) -> None:
        self._said: set[str] = set()

    def line(self, record: TaskRecord) -> str | None:
        """What is new about this task, if it failed."""
        if record.error is None:
            return None
        line = failure_line(record.file, record.error)
        known = line in self._said
        self._said.add(line)
        return None if known else line


def failure_line(file: str, error: ErrorBody) -> str:
    """A file and what went wrong with it, in one line."""
    return f"{file}: {error.code}: {' '.join(error.message.split())}"
