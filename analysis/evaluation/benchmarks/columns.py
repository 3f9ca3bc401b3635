"""Columns of a row, by any of the names that a public file gives them; an error names what is there."""

from __future__ import annotations

import json
from typing import Any

from analysis.evaluation.benchmarks.rows import Row
from schemas.errors import InvalidRequest


def first_of(row: Row, number: int, *names: str) -> Any:
    """The value of the first of these columns that the row has; InvalidRequest, with its columns, if none."""
    for name in names:
        for column in (name, name.lower(), name.title(), name.capitalize()):
            if row.get(column) is not None:
                return row[column]
    raise InvalidRequest(
        f"data: row {number} has no {' or '.join(names)}; its columns are {', '.join(row)}", field="data"
    )


def text(row: Row, number: int, *names: str) -> str:
    """A column that holds a text which is not empty."""
    value = first_of(row, number, *names)
    if not isinstance(value, str) or not value.strip():
        raise InvalidRequest(f"data: row {number}: {names[0]} is no text", field="data")
    return value


def listed(row: Row, number: int, *names: str) -> list[Any]:
    """A column that holds a list, or the JSON of one, as a CSV file does."""
    value = _parsed(first_of(row, number, *names))
    if not isinstance(value, list):
        raise InvalidRequest(f"data: row {number}: {names[0]} is no list", field="data")
    return value


def mapping(row: Row, number: int, *names: str) -> dict[str, Any]:
    """A column that holds an object, or the JSON of one."""
    value = _parsed(first_of(row, number, *names))
    if not isinstance(value, dict):
        raise InvalidRequest(f"data: row {number}: {names[0]} is no object", field="data")
    return value


def _parsed(value: Any) -> Any:
    if not isinstance(value, str):
        return value
    try:
        return json.loads(value)
    except ValueError:
        return value
