"""The journal of a batch, what it has asked and got: a batch that was killed goes on from here.

Its lines: the batch's head, then `asked` before a question goes out and `done` with its record.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, TypeAdapter

from schemas.errors import InvalidRequest
from schemas.message import Struct
from services.cli.batch.records import TaskRecord
from services.client.bulk.journal import Closing, Journal, JournalDamaged


class Head(Struct):
    """The first line. Batches are the same if their `settings` are; `run` is in all request ids."""

    line: Literal["head"] = "head"
    run: str
    started_at_s: float
    settings: str


class Asked(Struct):
    """A task is about to be asked of a model, for the `attempt`th time."""

    line: Literal["asked"] = "asked"
    task: str
    model: str
    attempt: int


class Done(Struct):
    """A task has ended."""

    line: Literal["done"] = "done"
    task: str
    record: TaskRecord


class Paused(Struct):
    """A run has ended; all runs so far have taken `seconds` together."""

    line: Literal["paused"] = "paused"
    seconds: float


Line = Head | Asked | Done | Paused
_LINE: TypeAdapter[Line] = TypeAdapter(Annotated[Line, Field(discriminator="line")])


class BatchJournal(Closing):
    """The journal of one batch. Of each task only the place of its record is in memory."""

    def __init__(self, path: Path, head: Head, *, restart: bool = False) -> None:
        """Goes on with a journal that is there, if it is of the same batch; with `restart` it begins anew.

        Raises InvalidRequest if it is another one's, if it is in use, or if it cannot be written.
        """
        self.asked: dict[str, Asked] = {}
        self.seconds_before = 0.0
        self._done: dict[str, tuple[int, bool]] = {}
        self._journal: Journal[Line] = Journal(path, _LINE, field="output", run="batch")
        try:
            if restart:
                self._journal.clear()
            self.head = self._resume(head)
        except BaseException:
            self._journal.close()
            raise

    def close(self) -> None:
        """Lets go of the file, once all of it is on the disk."""
        self._journal.close()

    def note_asked(self, asked: Asked) -> None:
        """To be called before the question goes out, so that it goes to the same model after a crash."""
        self.asked[asked.task] = asked
        self._journal.append(asked)

    def keep(self, task: str, record: TaskRecord) -> None:
        """Keeps a record; a later one of the same task takes its place."""
        self._done[task] = (self._journal.append(Done(task=task, record=record)), record.success)

    def is_done(self, task: str) -> bool:
        """Whether a task has been done, and well: what failed is done again."""
        return self._done.get(task, (0, False))[1]

    def failed(self, task: str) -> bool:
        """Whether a task has been done, and in vain."""
        return not self._done.get(task, (0, True))[1]

    def note_time(self, seconds: float) -> None:
        """Keeps how long all runs have taken together."""
        self._journal.append(Paused(seconds=seconds))

    def record(self, task: str) -> TaskRecord | None:
        """The last record of a task, read from disk."""
        if task not in self._done:
            return None
        line = self._journal.read(self._done[task][0])
        assert isinstance(line, Done)
        return line.record

    def _resume(self, head: Head) -> Head:
        """The head that stands in the file, or this one for an empty file."""
        try:
            found = self._journal.begin(
                head,
                lambda found: isinstance(found, Head) and found.settings == head.settings,
                "belongs to a batch with other prompts, models or options: "
                "choose another --output, or begin anew with --restart",
            )
            self._replay()
        except JournalDamaged as error:
            raise InvalidRequest(
                f"{self._journal.path} is not the journal of a batch: choose another --output, or --restart",
                field="output",
            ) from error
        assert isinstance(found, Head)
        return found

    def _replay(self) -> None:
        for offset, line in self._journal.replay():
            match line:
                case Asked():
                    self.asked[line.task] = line
                case Done():
                    self._done[line.task] = (offset, line.record.success)
                case Paused():
                    self.seconds_before = line.seconds
