"""Decodes the bodies of events to columns: pure, the same for one event as for a thousand.

A batch of one kind is read as a whole by Arrow's JSON reader, which holds it to the columns of the model.
What it does not accept (and kinds with columns that it cannot read) goes through the model one by one;
what the model does not accept either, or no column can hold, is unread: kept as it came, with the reason.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.json
from pydantic import BaseModel, ValidationError
from pydantic_core import from_json, to_json

from schemas.events import Event
from services.metrics.ingest.columns import JSON, TIMESTAMP, Column, without_none
from services.metrics.ingest.stored_event import StoredEvent
from services.metrics.store.tables import EventTable, event_tables

UNKNOWN_KIND = "no kind of this version"
MICROSECONDS = 1e6
SCHEMA_VERSION = 1
TIMESTAMP_TYPE = pa.timestamp("us")
EARLIEST_S, LATEST_S = -62_135_596_800, 253_402_300_799
"""The years 1 to 9999: what clients can read as a date."""
NO_ROW = (ArithmeticError, ValueError, TypeError, RecursionError, pa.ArrowException)
"""Errors of reading a value, or of making a column of it, if no column can hold it."""
LONGEST_REASON = 300
UNREAD_SCHEMA = pa.schema(
    [
        ("stream_epoch", pa.int32()),
        ("sequence", pa.int64()),
        ("stored_at", TIMESTAMP_TYPE),
        ("subject", pa.string()),
        ("kind", pa.string()),
        ("schema_version", pa.string()),
        ("why", pa.string()),
        ("body", pa.string()),
    ]
)


@dataclass
class Decoded:
    """The rows of a batch: a table for each kind, and one for what could not be read."""

    tables: dict[str, pa.Table] = field(default_factory=dict)
    unread: pa.Table | None = None

    def by_table(self, unread: str) -> Iterator[tuple[str, pa.Table]]:
        """Every table that has rows; `unread` is the name of the one for events that cannot be read."""
        yield from ((name, rows) for name, rows in self.tables.items() if rows.num_rows)
        if self.unread is not None:
            yield unread, self.unread


class Decoder:
    """Reads events of every kind that `schemas.events` knows."""

    def __init__(self) -> None:
        self._readers = {kind: _KindReader(table) for kind, table in event_tables().items()}

    @property
    def kinds(self) -> frozenset[str]:
        """Every kind that has a table."""
        return frozenset(self._readers)

    def decode(self, events: Iterable[StoredEvent], epoch: int) -> Decoded:
        """The rows of `events`, in their order; each event is in exactly one of the tables."""
        kinds: dict[str, list[StoredEvent]] = {}
        for event in events:
            kinds.setdefault(event.kind, []).append(event)
        decoded, unread = Decoded(), _Unread(epoch)
        for kind, group in kinds.items():
            reader = self._readers.get(kind)
            if reader is None:
                unread.add(group, UNKNOWN_KIND)
            else:
                decoded.tables[kind] = reader.read(group, epoch, unread)
        decoded.unread = unread.table()
        return decoded

    def unreadable(self, events: Sequence[StoredEvent], epoch: int, why: str) -> Decoded:
        """The rows of events that are to be kept as they came."""
        unread = _Unread(epoch)
        unread.add(events, why)
        return Decoded(unread=unread.table())


class _KindReader:
    """Reads events of one kind."""

    def __init__(self, table: EventTable) -> None:
        self._table = table
        self._columns = table.columns
        self._readable = all(column.sql_type != JSON for column in table.columns)
        self._options = pyarrow.json.ParseOptions(
            explicit_schema=json_schema(table.columns), unexpected_field_behavior="error"
        )
        self._getters = [getter(column) for column in table.columns]

    def read(self, events: list[StoredEvent], epoch: int, unread: _Unread) -> pa.Table:
        """The table of these events, without those that are added to `unread`."""
        columns = self._as_a_whole(events) if self._readable else None
        if columns is None:
            events, columns = self._one_by_one(events, unread)
        names = [name for name, _ in self._table.definition]
        return pa.table([*envelope(events, epoch), *columns], names=names)

    def _as_a_whole(self, events: list[StoredEvent]) -> list[pa.Array] | None:
        """All columns, or None if not every single event is what the model says."""
        if not all(event.body[:1] == b"{" for event in events):
            return None
        data = b"\n".join([event.body for event in events])
        if data.count(b"\n") != len(events) - 1:
            return None
        reading = pyarrow.json.ReadOptions(use_threads=False, block_size=len(data) + 1)
        try:
            found = pyarrow.json.read_json(pa.BufferReader(data), reading, self._options)
            if found.num_rows != len(events) or not self._consistent(found):
                return None
            return [self._column(found, column) for column in self._columns]
        except MemoryError:  # Arrow's own is one of NO_ROW, too
            raise
        except NO_ROW:
            return None

    def _consistent(self, found: pa.Table) -> bool:
        kind, version = found["kind"], found["schema_version"]
        return bool(
            pc.all(pc.fill_null(pc.equal(kind, self._table.kind), False)).as_py()
            and pc.all(pc.equal(version, SCHEMA_VERSION)).as_py()
            and all(_at(found, column.path).null_count == 0 for column in self._columns if column.required)
        )

    def _column(self, found: pa.Table, column: Column) -> pa.Array:
        values = _at(found, column.path)
        if column.sql_type == TIMESTAMP:
            return timestamps(values)
        default = default_of(self._table.model, column.path)
        if default is None or values.null_count == 0:
            return values
        return pc.fill_null(values, pa.scalar(default, column.arrow_type))

    def _one_by_one(
        self, events: list[StoredEvent], unread: _Unread
    ) -> tuple[list[StoredEvent], list[pa.Array]]:
        read = [(event, model) for event in events if (model := self._model(event, unread)) is not None]
        try:
            columns = self._arrays([model for _, model in read])
        except Unfit:
            read = [(event, model) for event, model in read if self._fits(event, model, unread)]
            columns = self._arrays([model for _, model in read])
        return [event for event, _ in read], columns

    def _model(self, event: StoredEvent, unread: _Unread) -> Event | None:
        try:
            return self._table.model.read(event.body)
        except ValidationError as error:
            unread.add([event], fault(error))
        except NO_ROW as error:
            unread.add([event], reason(error))
        return None

    def _fits(self, event: StoredEvent, model: Event, unread: _Unread) -> bool:
        try:
            self._arrays([model])
        except Unfit as error:
            unread.add([event], str(error))
            return False
        return True

    def _arrays(self, models: list[Event]) -> list[pa.Array]:
        """All columns of these events. Raises Unfit if one has a value that its column cannot hold."""
        columns = []
        for column, get in zip(self._columns, self._getters, strict=True):
            try:
                columns.append(array([get(model) for model in models], column))
            except MemoryError:  # Arrow's own is one of NO_ROW, too
                raise
            except NO_ROW as error:
                raise Unfit(f"{'.'.join(column.path)}: {reason(error)}") from error
        return columns


class Unfit(Exception):
    """Raised for an event with a value that its column cannot hold."""


class _Unread:
    """The unread events, with the reasons."""

    def __init__(self, epoch: int) -> None:
        self._epoch = epoch
        self._events: list[StoredEvent] = []
        self._why: list[str] = []

    def add(self, events: Sequence[StoredEvent], why: str) -> None:
        """These events, all for one reason."""
        self._events += events
        self._why += [why] * len(events)

    def table(self) -> pa.Table | None:
        """The rows of `unread_events`; None if there are none."""
        if not self._events:
            return None
        columns = [
            *envelope(self._events, self._epoch),
            pa.array([event.subject for event in self._events], pa.string()),
            pa.array([event.kind for event in self._events], pa.string()),
            pa.array([version_of(event.body) for event in self._events], pa.string()),
            pa.array(self._why, pa.string()),
            pa.array([event.body.decode(errors="replace") for event in self._events], pa.string()),
        ]
        return pa.table(columns, schema=UNREAD_SCHEMA)


def envelope(events: Sequence[StoredEvent], epoch: int) -> list[pa.Array]:
    """The columns that every table begins with."""
    return [
        pa.repeat(pa.scalar(epoch, pa.int32()), len(events)),
        pa.array([event.sequence for event in events], pa.int64()),
        pa.array([event.stored_at_us for event in events], pa.int64()).cast(TIMESTAMP_TYPE),
    ]


def json_schema(columns: Sequence[Column]) -> pa.Schema:
    """The schema of a kind for Arrow's reader: its columns, nested as in the message."""
    head = [("schema_version", pa.int64()), ("kind", pa.string())]
    return pa.schema([*head, *_fields(columns, depth=0)])


def _fields(columns: Sequence[Column], depth: int) -> list[tuple[str, pa.DataType]]:
    fields: dict[str, list[Column]] = {}
    for column in columns:
        fields.setdefault(column.path[depth], []).append(column)
    return [
        (
            name,
            group[0].arrow_type if len(group[0].path) == depth + 1 else pa.struct(_fields(group, depth + 1)),
        )
        for name, group in fields.items()
    ]


def _at(table: pa.Table, path: tuple[str, ...]) -> pa.ChunkedArray:
    values = table[path[0]]
    return pc.struct_field(values, list(path[1:])) if len(path) > 1 else values


def timestamps(seconds: pa.ChunkedArray | pa.Array) -> pa.Array:
    """Seconds since the epoch as timestamps, to the microsecond. ValueError for one without a date."""
    has_date = pc.and_(pc.greater_equal(seconds, EARLIEST_S), pc.less_equal(seconds, LATEST_S))
    if pc.any(pc.invert(has_date)).as_py():  # not-a-number has none either
        raise ValueError("no time between the years 1 and 9999")
    whole = pc.cast(pc.round(pc.multiply(seconds, MICROSECONDS)), pa.int64())
    return whole.cast(TIMESTAMP_TYPE)


@cache
def default_of(model: type[BaseModel], path: tuple[str, ...]) -> Any:
    """The default of a field that a message leaves out; None where that is null, or within a null."""
    found = model.model_fields[path[0]]
    if len(path) == 1:
        value = found.get_default()
        return value if isinstance(value, bool | int | float | str | tuple) else None
    annotation, optional = without_none(found.annotation)
    return None if optional else default_of(annotation, path[1:])


def getter(column: Column) -> Callable[[Event], Any]:
    """Reads a column's value from an event; None where a model on the way is None."""
    attributes = [operator.attrgetter(name) for name in column.path]

    def get(event: Event) -> Any:
        value: Any = event
        for attribute in attributes:
            if value is None:
                return None
            value = attribute(value)
        return value

    return get


def array(values: list[Any], column: Column) -> pa.Array:
    """The values of a column that were read one by one."""
    if column.sql_type == TIMESTAMP:
        return timestamps(pa.array(values, pa.float64()))
    if column.sql_type == JSON:
        return pa.array([None if v is None else to_json(v).decode() for v in values], pa.string())
    return pa.array(values, column.arrow_type)


def fault(error: ValidationError) -> str:
    """The first thing that is wrong with an event, and where."""
    first = error.errors(include_input=False, include_url=False)[0]
    place = ".".join(str(part) for part in first["loc"]) or "body"
    return f"{place}: {first['msg']}"[:LONGEST_REASON]


def reason(error: Exception) -> str:
    """The text of an error, in one line."""
    return " ".join(str(error).split())[:LONGEST_REASON] or type(error).__name__


def version_of(body: bytes) -> str | None:
    """The schema version that an event says it has; None if it cannot be read at all."""
    return _said(body, "schema_version")


def event_id(body: bytes) -> str | None:
    """The id of an event of any kind; None if it has none."""
    return _said(body, "event_id")


def _said(body: bytes, field: str) -> str | None:
    try:
        document = from_json(body)
        value = document.get(field) if isinstance(document, dict) else None
        return None if value is None else str(value)
    except (ValueError, RecursionError):  # an integer of too many digits is a ValueError of `str`
        return None
