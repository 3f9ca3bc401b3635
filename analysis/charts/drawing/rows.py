"""What charts are drawn from: the rows of a query, by the names of its columns."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, TypeAlias

import altair as alt

Row: TypeAlias = Mapping[str, Any]
Rows: TypeAlias = Sequence[Row]


def inline(rows: Rows) -> alt.InlineData:
    """The rows within the chart itself, so that it needs no file and no server."""
    return alt.InlineData(values=[dict(row) for row in rows])


def unpivoted(rows: Rows, columns: Mapping[str, str], kind: str = "kind", value: str = "value") -> list[Row]:
    """A row for each of `columns` (column -> what it is called), without those that have no value."""
    return [
        {**row, kind: called, value: row[column]}
        for row in rows
        for column, called in columns.items()
        if row[column] is not None
    ]


def utc(moment: str | datetime) -> datetime:
    """A time of the event database, which are UTC and do not say so."""
    read = datetime.fromisoformat(moment) if isinstance(moment, str) else moment
    return read.replace(tzinfo=UTC) if read.tzinfo is None else read.astimezone(UTC)


def written(moment: datetime) -> str:
    """A time as charts read it."""
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
