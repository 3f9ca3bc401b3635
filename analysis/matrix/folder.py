"""The folder of a matrix: what was asked for, every result as it came, and the CSV of all metrics.

`results.jsonl` is what counts: a line for each cell that is done, with both raw outputs, handed to the
operating system before the next cell is asked. `matrix.csv` grows with it, and is made anew when a run is
resumed; so a process that is killed at any moment leaves nothing half done.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable
from pathlib import Path
from types import TracebackType

from pydantic import ValidationError

from analysis.matrix.options import MatrixOptions
from analysis.matrix.record import COLUMNS, Record, Row, row
from schemas.errors import InvalidRequest
from schemas.message import Struct
from services.chassis.identity import new_id
from services.client.bulk.journal import RecordJournal

RUN_FILE = "matrix.json"
RESULTS_FILE = "results.jsonl"
CSV_FILE = "matrix.csv"


class Run(Struct):
    """What matrix.json says: under which name the cells are asked, and what was asked for."""

    run_id: str
    options: MatrixOptions


class MatrixFolder:
    """One matrix on disk. Use it as a context manager.

    Entering it raises InvalidRequest, naming `out`, if its results are damaged or somebody adds to them.
    """

    def __init__(self, path: Path, run: Run) -> None:
        self.path = path
        self.run = run

    @classmethod
    def open(cls, path: Path, options: MatrixOptions) -> MatrixFolder:
        """A new folder, or one in which the same matrix was begun.

        InvalidRequest, naming `out`, if it holds another one or cannot be written.
        """
        file = path / RUN_FILE
        try:
            path.mkdir(parents=True, exist_ok=True)
            if not file.exists():
                run = Run(run_id=new_id(), options=options)
                file.write_text(run.model_dump_json(indent=2) + "\n", encoding="utf-8")
                return cls(path, run)
            run = Run.model_validate_json(file.read_bytes())
        except OSError as error:
            raise InvalidRequest(f"out: {path}: {error.strerror}", field="out") from error
        except ValidationError as error:
            raise InvalidRequest(f"out: {file} does not describe a matrix", field="out") from error
        different = [name for name in type(options).model_fields if _differs(name, run.options, options)]
        if different:
            raise InvalidRequest(
                f"out: {path} holds a matrix with other {', '.join(different)}; go on with the same options, "
                "or take another folder",
                field="out",
            )
        return cls(path, run)

    def __enter__(self) -> MatrixFolder:
        self._journal = RecordJournal(
            self.path / RESULTS_FILE, Record, lambda kept: kept.request_id, field="out", run="matrix"
        )
        try:
            _replace(self.path / CSV_FILE, csv_text(map(row, self.records.values()), head=True))
            self._csv = (self.path / CSV_FILE).open("ab", buffering=0)
        except BaseException:
            self._journal.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._csv.close()
        self._journal.close()

    @property
    def records(self) -> dict[str, Record]:
        """The cells that are done, by request."""
        return self._journal.records

    def is_done(self, key: str) -> bool:
        """Whether the cell of a request has been measured."""
        return self._journal.is_done(key)

    def keep(self, key: str, record: Record) -> None:
        """Keeps what came of a cell, under its request."""
        self._journal.keep(key, record)
        self._csv.write(csv_text([row(record)]).encode())


def _differs(name: str, one: MatrixOptions, other: MatrixOptions) -> bool:
    return bool(getattr(one, name) != getattr(other, name))


def csv_text(rows: Iterable[Row], *, head: bool = False) -> str:
    """Rows as CSV, with the names of the columns above them if `head`; nothing stands for None."""
    out = io.StringIO(newline="")
    writer = csv.DictWriter(out, COLUMNS, lineterminator="\n")
    if head:
        writer.writeheader()
    writer.writerows(rows)
    return out.getvalue()


def _replace(path: Path, text: str) -> None:
    fresh = path.with_suffix(".new")
    fresh.write_text(text, encoding="utf-8", newline="")
    fresh.replace(path)
