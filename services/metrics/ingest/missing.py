"""Notes events that the stream had dropped before they were stored.

The stream keeps so many bytes and so many days. What it drops while nobody stores (the service was stopped,
or slower than the mesh) can never be read. So each such range is a row of `missing_events`, a note, and a
problem in the lease: the counts of that time are too small, and everybody can know it.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from typing import NamedTuple

from duckdb import DuckDBPyConnection

from services.metrics.ingest.position import Position
from services.metrics.ingest.stored_event import StoredEvent

SHOWN_FOR = timedelta(days=1)
"""How long the lease speaks of a range after it was noticed."""


class MissingRange(NamedTuple):
    """From `first` to `last`, both missing. The times are those of the events around it, by the broker's
    clock in microseconds since the epoch; `after_us` is None where the event before is of an earlier batch.
    """

    epoch: int
    first: int
    last: int
    after_us: int | None
    before_us: int


def missing_ranges(events: Sequence[StoredEvent], position: Position) -> list[MissingRange]:
    """The ranges that are missing between `position` and the events after it, and between these. Pure."""
    if not events or events[-1].sequence - position.sequence == len(events):
        return []
    found: list[MissingRange] = []
    wanted, after_us = position.sequence + 1, None
    for event in events:
        if event.sequence > wanted:
            found.append(
                MissingRange(position.epoch, wanted, event.sequence - 1, after_us, event.stored_at_us)
            )
        wanted, after_us = event.sequence + 1, event.stored_at_us
    return found


def save(cursor: DuckDBPyConnection, ranges: Sequence[MissingRange]) -> None:
    """Writes ranges and a note on each, within the transaction that is open."""
    for missing in ranges:
        cursor.execute(
            "INSERT INTO missing_events VALUES ("
            "now()::TIMESTAMP, ?, ?, ?, coalesce(make_timestamp(?), (SELECT max(stored_at) FROM events)), "
            "make_timestamp(?))",
            [*missing],
        )
        cursor.execute("INSERT INTO database_notes VALUES (now()::TIMESTAMP, ?)", [note(missing)])


def note(missing: MissingRange) -> str:
    """The note of a range for `database_notes`."""
    return (
        f"{missing.last - missing.first + 1} events are missing, numbers {missing.first} to {missing.last}: "
        "the stream had dropped them before they were stored"
    )


def problem(cursor: DuckDBPyConnection) -> str | None:
    """The problem in the lease: the ranges that were noticed within the last day; None without any.

    What was gone before a database was begun is in the table, and no problem: nobody has waited for it.
    """
    row = cursor.execute(
        "SELECT sum(last_sequence - first_sequence + 1)::BIGINT, "
        "arg_max(first_sequence, noticed_at), arg_max(last_sequence, noticed_at) "
        "FROM missing_events WHERE after_at IS NOT NULL AND noticed_at > now()::TIMESTAMP - ?",
        [SHOWN_FOR],
    ).fetchone()
    if row is None or row[0] is None:
        return None
    count, first, last = row
    return (
        f"{count} events are missing, at last numbers {first} to {last}: the stream had dropped them before "
        "they were stored; counts of that time are too small (see choir report)"
    )
