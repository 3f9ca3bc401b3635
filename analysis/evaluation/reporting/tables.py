"""Rows as CSV, JSON and Parquet, all three with the same columns in the same order.

A cell may be a list or an object; a CSV file has no such, and has its JSON there.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import duckdb

Row = dict[str, Any]


def write_table(folder: Path, name: str, rows: Sequence[Row], *, parquet: bool = False) -> None:
    """Writes `name`.csv and `name`.json, and `name`.parquet if asked; columns that a row lacks are empty."""
    columns = list(dict.fromkeys(column for row in rows for column in row))
    with replacing(folder / f"{name}.csv") as path, path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, columns, restval="", lineterminator="\n")
        writer.writeheader()
        writer.writerows({column: _flat(value) for column, value in row.items()} for row in rows)
    complete = [{column: row.get(column) for column in columns} for row in rows]
    with replacing(folder / f"{name}.json") as path:
        lines = ",\n".join(json.dumps(row, ensure_ascii=False) for row in complete)
        path.write_text(f"[\n{lines}\n]\n", encoding="utf-8")
    if parquet:
        with replacing(folder / f"{name}.parquet") as path:
            _write_parquet(folder / f"{name}.json", path)


def _flat(value: Any) -> Any:
    return json.dumps(value, ensure_ascii=False) if isinstance(value, (list, dict)) else value


def _write_parquet(source: Path, target: Path) -> None:
    with duckdb.connect() as connection:
        relation = connection.read_json(str(source), sample_size=-1, maximum_object_size=1 << 28)
        relation.write_parquet(str(target), compression="zstd")


class replacing:
    """A path beside the one that is meant, which it replaces in one step if nothing went wrong.

    So whoever reads a file while it is written anew, or after a crash, sees the old one or the new one.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._part = path.with_name(f".{path.name}.part")

    def __enter__(self) -> Path:
        return self._part

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is None:
            self._part.replace(self._path)
        else:
            self._part.unlink(missing_ok=True)
