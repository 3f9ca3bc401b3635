"""The tables of the event database: one for each kind of event, generated from the models."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache

from schemas.events import Event
from services.metrics.ingest.columns import Column, columns_of, event_models, kind_of

ENVELOPE: tuple[tuple[str, str], ...] = (
    ("stream_epoch", "INTEGER"),
    ("sequence", "BIGINT"),
    ("stored_at", "TIMESTAMP"),
)
"""The first columns of every row: the life of the stream, its number there, the broker's time (UTC)."""

SERVICE_TABLES: dict[str, tuple[tuple[str, str], ...]] = {
    "unread_events": (
        *ENVELOPE,
        ("subject", "VARCHAR"),
        ("kind", "VARCHAR"),
        ("schema_version", "VARCHAR"),
        ("why", "VARCHAR"),
        ("body", "VARCHAR"),
    ),
    "stream_position": (
        ("stream_epoch", "INTEGER"),
        ("sequence", "BIGINT"),
        ("fingerprint", "VARCHAR"),
        ("stream_created", "VARCHAR"),
    ),
    "parquet_position": (("kind", "VARCHAR"), ("stream_epoch", "INTEGER"), ("sequence", "BIGINT")),
    "missing_events": (
        ("noticed_at", "TIMESTAMP"),
        ("stream_epoch", "INTEGER"),
        ("first_sequence", "BIGINT"),
        ("last_sequence", "BIGINT"),
        ("after_at", "TIMESTAMP"),
        ("before_at", "TIMESTAMP"),
    ),
    "database_notes": (("at", "TIMESTAMP"), ("note", "VARCHAR")),
}
"""Events that this version cannot read, kept as they came; how far the stream has been stored, and each table
been written to Parquet; which events the stream had dropped before they were stored, with the broker's times
of those around them; and what happened to the database itself."""


@dataclass(frozen=True)
class EventTable:
    """The table of one kind of event."""

    kind: str
    model: type[Event]
    columns: tuple[Column, ...]

    @property
    def definition(self) -> tuple[tuple[str, str], ...]:
        """Name and type of every column."""
        return (*ENVELOPE, *((column.name, column.sql_type) for column in self.columns))


@cache
def event_tables() -> Mapping[str, EventTable]:
    """A table for each kind of event that `schemas.events` knows."""
    return {kind_of(model): EventTable(kind_of(model), model, columns_of(model)) for model in event_models()}


def definitions() -> dict[str, tuple[tuple[str, str], ...]]:
    """All tables: name -> columns."""
    kinds = {kind: table.definition for kind, table in event_tables().items()}
    return {**kinds, **SERVICE_TABLES}


def create(name: str, columns: tuple[tuple[str, str], ...]) -> str:
    """The statement that makes a table."""
    body = ", ".join(f"{quoted(column)} {sql_type}" for column, sql_type in columns)
    return f"CREATE TABLE {quoted(name)} ({body})"


def migrations(name: str, wanted: tuple[tuple[str, str], ...], found: dict[str, str] | None) -> list[str]:
    """The statements that give a table what it lacks; `found` are its columns, None if there is no table.

    A column that no model has any more stays. Raises OtherShape for one that now has another type.
    """
    if found is None:
        return [create(name, wanted)]
    changed = [column for column, sql_type in wanted if found.get(column, sql_type) != sql_type]
    if changed:
        raise OtherShape(f"table {name} holds {', '.join(changed)} as another type")
    return [
        f"ALTER TABLE {quoted(name)} ADD COLUMN {quoted(column)} {sql_type}"
        for column, sql_type in wanted
        if column not in found
    ]


class OtherShape(Exception):
    """Raised for a database whose tables cannot be made what the models say by adding columns."""


def quoted(name: str) -> str:
    """A name as SQL takes it, whatever is in it."""
    return '"' + name.replace('"', '""') + '"'


def literal(text: str) -> str:
    """A text as SQL takes it."""
    return "'" + text.replace("'", "''") + "'"
