"""Rows of the event database, with names for their columns."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from schemas.requests import queries

Rows = Sequence[Mapping[str, Any]]


def rows_of(reply: queries.Rows) -> Rows:
    """Each row by the names of its columns."""
    names = [column.name for column in reply.columns]
    return [dict(zip(names, row, strict=True)) for row in reply.rows]
