"""The folder of a matrix: what was asked for, every result as it came, and the CSV of all metrics.

`results.jsonl` is what counts: a line for each cell that is done, with both raw outputs, handed to the
operating system before the next cell is asked. `matrix.csv` grows with it, and is made anew when a run is
resumed; so a process that is killed at any moment leaves nothing half done.
"""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Iterable
from pathlib import Path
from types import TracebackType

from pydantic import ValidationError

from analysis.matrix.options import MatrixOptions
from analysis.matrix.record import COLUMNS, Record, Row, row
from schemas.errors import InvalidRequest
from schemas.message import Struct
from services.chassis.identity import new_id
from services.chassis.plain_words import first_fault

RUN_FILE = "matrix.json"
RESULTS_FILE = "results.jsonl"
CSV_FILE = "matrix.csv"


class Run(Struct):
    """What matrix.json says: under which name the cells are asked, and what was asked for."""

    run_id: str
    options: MatrixOptions


class MatrixFolder:
    """One matrix on disk. Use it as a context manager; `records` are the cells that are done, by request."""

    def __init__(self, path: Path, run: Run) -> None:
        self.path = path
        self.run = run
        self.records: dict[str, Record] = {}

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
        self.records = {record.request_id: record for record in _read(self.path / RESULTS_FILE)}
        _replace(self.path / CSV_FILE, csv_text(map(row, self.records.values()), head=True))
        self._results = (self.path / RESULTS_FILE).open("ab", buffering=0)
        self._csv = (self.path / CSV_FILE).open("ab", buffering=0)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._results.close()
        self._csv.close()

    def append(self, record: Record) -> None:
        """Keeps what came of a cell."""
        self._results.write(record.model_dump_json(exclude_none=True).encode() + b"\n")
        self._csv.write(csv_text([row(record)]).encode())
        self.records[record.request_id] = record


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


def _read(path: Path) -> list[Record]:
    """What was kept; a last line without its end was cut off by a crash, and is taken away."""
    if not path.is_file():
        return []
    content = path.read_bytes()
    whole = content[: content.rfind(b"\n") + 1]
    if whole != content:
        os.truncate(path, len(whole))
    try:
        return [Record.model_validate_json(line) for line in whole.splitlines()]
    except ValidationError as error:
        raise InvalidRequest(f"out: {path} is damaged: {first_fault(error)[1]}", field="out") from error


def _replace(path: Path, text: str) -> None:
    fresh = path.with_suffix(".new")
    fresh.write_text(text, encoding="utf-8", newline="")
    fresh.replace(path)
