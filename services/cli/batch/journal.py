"""What a batch has asked and got so far, on disk at once: a batch that was killed goes on from here.

One JSON document a line: the batch's head, then `asked` before a question goes out and `done` with its
record. A last line that was cut off is left out of account, and cut away before the next is written.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Annotated, Literal, Self

from pydantic import Field, TypeAdapter, ValidationError

from schemas.errors import InvalidRequest
from schemas.message import Struct
from services.cli.batch.records import TaskRecord


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


class Journal:
    """The file, open for one batch at a time. Of each task only the place of its record is in memory."""

    def __init__(self, path: Path, head: Head) -> None:
        """Goes on with a journal that is there, if it is of the same batch.

        Raises InvalidRequest if it is another one's, if it is in use, or if it cannot be written.
        """
        self.path = path
        self.asked: dict[str, Asked] = {}
        self.seconds_before = 0.0
        self._done: dict[str, tuple[int, bool]] = {}
        try:
            self._file = path.open("a+b")
        except OSError as error:
            raise InvalidRequest(f"{path} cannot be written: {error.strerror}", field="output") from error
        try:
            self._lock()
            self.head = self._resume(head)
        except BaseException:
            self._file.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.flush()
        os.fsync(self._file.fileno())
        self._file.close()

    def note_asked(self, asked: Asked) -> None:
        """To be called before the question goes out, so that it goes to the same model after a crash."""
        self.asked[asked.task] = asked
        self._append(asked)

    def note_done(self, task: str, record: TaskRecord) -> None:
        """Keeps a record; a later one of the same task takes its place."""
        self._done[task] = (self._append(Done(task=task, record=record)), record.success)

    def succeeded(self, task: str) -> bool:
        """Whether a task has been done, and well."""
        return self._done.get(task, (0, False))[1]

    def failed(self, task: str) -> bool:
        """Whether a task has been done, and in vain."""
        return not self._done.get(task, (0, True))[1]

    def note_time(self, seconds: float) -> None:
        """Keeps how long all runs have taken together."""
        self._append(Paused(seconds=seconds))

    def record(self, task: str) -> TaskRecord | None:
        """The last record of a task, read from disk."""
        if task not in self._done:
            return None
        self._file.seek(self._done[task][0])
        line = _LINE.validate_json(self._file.readline())
        assert isinstance(line, Done)
        return line.record

    def _lock(self) -> None:
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise InvalidRequest(f"another batch is writing {self.path}", field="output") from error

    def _resume(self, head: Head) -> Head:
        """The head that stands in the file, or this one for an empty file."""
        found: Head | None = None
        for offset, line in self._lines():
            match line:
                case Head():
                    found = line
                case Asked():
                    self.asked[line.task] = line
                case Done():
                    self._done[line.task] = (offset, line.record.success)
                case Paused():
                    self.seconds_before = line.seconds
        if found is None:
            self._append(head)
            return head
        if found.settings != head.settings:
            raise InvalidRequest(
                f"{self.path} belongs to a batch with other prompts, models or options: "
                "choose another --output, or begin anew with --restart",
                field="output",
            )
        return found

    def _lines(self) -> Iterator[tuple[int, Line]]:
        """All whole lines with their offsets; what follows the last of them is cut away."""
        offset = 0
        self._file.seek(0)
        for raw in self._file:
            if not raw.endswith(b"\n"):
                break
            try:
                yield offset, _LINE.validate_json(raw)
            except ValidationError as error:
                raise InvalidRequest(
                    f"{self.path} is not the journal of a batch: choose another --output, or --restart",
                    field="output",
                ) from error
            offset += len(raw)
        self._file.truncate(offset)

    def _append(self, line: Line) -> int:
        """Writes a line at the end and returns where it begins."""
        self._file.seek(0, os.SEEK_END)
        offset = self._file.tell()
        self._file.write(line.model_dump_json(exclude_none=True).encode() + b"\n")
        self._file.flush()
        return offset
