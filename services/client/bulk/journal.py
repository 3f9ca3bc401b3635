"""The journal of a long run, on disk at once: one JSON document a line, only ever appended.

A line is with the operating system before `append` returns, so that nothing is lost when the process is
killed; it is on the disk within a second. A last line that was cut off is left out of account, and cut away
when the journal is opened again.
"""

from __future__ import annotations

import fcntl
import os
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Generic, Self, TypeVar

from pydantic import BaseModel, TypeAdapter, ValidationError

from schemas.errors import InvalidRequest
from services.chassis.plain_words import first_fault

SYNC_INTERVAL_S = 1.0

LineT = TypeVar("LineT", bound=BaseModel)
RecordT = TypeVar("RecordT", bound=BaseModel)


class JournalUnwritable(InvalidRequest):
    """Raised for a place where no journal can be written."""


class JournalInUse(InvalidRequest):
    """Raised for a journal that somebody else is writing."""


class JournalDamaged(InvalidRequest):
    """Raised for a whole line that is none of this kind of journal."""


class JournalOfAnotherRun(InvalidRequest):
    """Raised for a journal whose head says that it belongs to another run."""


class Closing(ABC):
    """What is closed: by whoever opened it, or at the end of a `with` block."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @abstractmethod
    def close(self) -> None:
        """Lets go of what is open."""


class Journal(Closing, Generic[LineT]):
    """A file of lines, open for one writer at a time.

    `lines` reads a line; `field` is the option that errors name; `run` says in a word what is run.
    """

    def __init__(self, path: Path, lines: TypeAdapter[LineT], *, field: str, run: str) -> None:
        """Opens the file, or makes it. Raises JournalUnwritable and JournalInUse."""
        self.path = path
        self._lines = lines
        self._field = field
        self._run = run
        self._synced_s = time.monotonic()
        try:
            self._file = path.open("a+b")
        except OSError as error:
            raise JournalUnwritable(f"{path} cannot be written: {error.strerror}", field=field) from error
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            self._file.close()
            raise JournalInUse(f"another {run} is writing {path}", field=field) from error

    def close(self) -> None:
        """Lets go of the file, once all of it is on the disk."""
        with self._file:
            self._file.flush()
            os.fsync(self._file.fileno())

    def clear(self) -> None:
        """Forgets all lines."""
        self._file.truncate(0)

    def begin(self, head: LineT, is_same: Callable[[LineT], bool], refusal: str) -> LineT:
        """The head of the file, its first line, which says what run it belongs to; an empty file gets `head`.

        Raises JournalOfAnotherRun with `refusal`, which tells the way out, where `is_same` says that it is
        another run's, and JournalDamaged.
        """
        for _, _, found in self._whole_lines():
            if is_same(found):
                return found
            raise JournalOfAnotherRun(f"{self.path} {refusal}", field=self._field)
        self.clear()
        self.append(head)
        return head

    def replay(self) -> Iterator[tuple[int, LineT]]:
        """All whole lines, each after the offset of its begin; what follows the last is cut away.

        Raises JournalDamaged, and leaves the file as it is.
        """
        end = 0
        for begin, line_end, line in self._whole_lines():
            end = line_end
            yield begin, line
        self._file.truncate(end)

    def append(self, line: LineT) -> int:
        """Writes a line at the end and returns the offset of its begin."""
        offset = self._file.seek(0, os.SEEK_END)
        self._file.write(line.model_dump_json(exclude_none=True).encode() + b"\n")
        self._file.flush()
        if time.monotonic() - self._synced_s > SYNC_INTERVAL_S:
            os.fdatasync(self._file.fileno())
            self._synced_s = time.monotonic()
        return offset

    def read(self, offset: int) -> LineT:
        """The line that begins at `offset`."""
        self._file.seek(offset)
        return self._lines.validate_json(self._file.readline())

    def _whole_lines(self) -> Iterator[tuple[int, int, LineT]]:
        return _whole_lines(self._file, self.path, self._lines, self._field)


class RecordJournal(Closing, Generic[RecordT]):
    """A journal of which every line is all that is kept of one job; `records` has them by their keys."""

    def __init__(
        self,
        path: Path,
        record: type[RecordT],
        key: Callable[[RecordT], str],
        *,
        field: str,
        run: str,
    ) -> None:
        """Opens the file as `Journal` does, and reads it. Raises JournalDamaged besides."""
        self._journal = Journal(path, TypeAdapter(record), field=field, run=run)
        try:
            self.records = {key(line): line for _, line in self._journal.replay()}
        except BaseException:
            self._journal.close()
            raise

    def close(self) -> None:
        """Lets go of the file, once all of it is on the disk."""
        self._journal.close()

    def is_done(self, key: str) -> bool:
        """Whether a job has its record."""
        return key in self.records

    def keep(self, key: str, record: RecordT) -> None:
        """Keeps the record of a job; after a crash of this process it is there."""
        self._journal.append(record)
        self.records[key] = record


def read_records(path: Path, record: type[RecordT], *, field: str) -> list[RecordT]:
    """The records of a journal that somebody may be writing, none if there is no file. JournalDamaged."""
    if not path.is_file():
        return []
    with path.open("rb") as file:
        return [line for _, _, line in _whole_lines(file, path, TypeAdapter(record), field)]


def _whole_lines(
    file: BinaryIO, path: Path, lines: TypeAdapter[LineT], field: str
) -> Iterator[tuple[int, int, LineT]]:
    """Where each line begins and ends, and what it says; a last one without its end is left out."""
    begin = 0
    file.seek(0)
    for number, raw in enumerate(file, start=1):
        if not raw.endswith(b"\n"):
            return
        try:
            line = lines.validate_json(raw)
        except ValidationError as error:
            place, what = first_fault(error, whole="line")
            raise JournalDamaged(
                f"{field}: {path} line {number} is damaged ({place}: {what})", field=field
            ) from error
        yield begin, (begin := begin + len(raw)), line
