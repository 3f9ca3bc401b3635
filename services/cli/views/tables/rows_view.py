"""Rows of the event database for people, for spreadsheets and for programs."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable
from typing import Any

from rich.console import Console

from schemas.requests.queries import Rows
from services.cli.views.tables.overview_tables import table
from services.cli.views.terminal import plain

NUMBERS = ("INTEGER", "BIGINT", "HUGEINT", "DOUBLE", "FLOAT", "DECIMAL", "UBIGINT", "SMALLINT", "TINYINT")
DIGITS = 6


def as_table(rows: Rows, console: Console) -> None:
    """Prints a table, and beneath it how many rows there are."""
    right = [column.name for column in rows.columns if column.type.startswith(NUMBERS)]
    # Two columns may have one name: the table takes them in order.
    grid = table(*rows.names, right=right)
    for row in rows.rows:
        grid.add_row(*(plain(cell(value)) for value in row))
    console.print(grid)
    console.print(summary(rows), style="dim")


def summary(rows: Rows) -> str:
    """How many rows came back and how long that took."""
    count = f"{rows.row_count:,} row{'' if rows.row_count == 1 else 's'}"
    cut = ", and more that were cut off" if rows.truncated else ""
    return f"{count}{cut} in {rows.elapsed_ms:.0f} ms"


def as_csv(rows: Rows) -> str:
    """A header and a line for each row, as RFC 4180 has it; null is empty."""
    return csv_lines(rows.names, rows.rows)


def csv_lines(names: list[str], rows: tuple[tuple[Any, ...], ...]) -> str:
    """CSV of rows; no header without names."""
    sink = io.StringIO()
    writer = csv.writer(sink, lineterminator="\n")
    if names:
        writer.writerow(names)
    writer.writerows([_csv_value(value) for value in row] for row in rows)
    return sink.getvalue()


def _csv_value(value: Any) -> Any:
    return json.dumps(value, ensure_ascii=False) if isinstance(value, list | dict) else value


def as_json(rows: Rows) -> str:
    """One JSON document: the reply as it came."""
    return rows.model_dump_json(indent=2) + "\n"


def cell(value: Any) -> str:
    """One value of a table."""
    match value:
        case None:
            return "-"
        case bool():
            return str(value).lower()
        case float():
            return f"{value:,.{DIGITS}g}" if abs(value) < 1e6 else f"{value:,.0f}"
        case list() | dict():
            return json.dumps(value, ensure_ascii=False)
    return str(value)


FORMATS: dict[str, Callable[[Rows], str]] = {"csv": as_csv, "json": as_json}
"""What is written as text; a table goes to a console."""
