"""The position in the stream up to which events are stored, kept in the transaction of the rows.

A stream can begin anew (it was deleted and made again) or lose its tail (a broker that crashed before it had
written). Then the same numbers come again for other events: a new *epoch* begins, and a row's key is its
epoch and its sequence.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace

from duckdb import DuckDBPyConnection

from services.metrics.ingest.stored_event import StoredEvent


@dataclass(frozen=True)
class Position:
    """The event stored last: its number, and by what it is known again. `stream_created` names the stream."""

    epoch: int = 0
    sequence: int = 0
    fingerprint: str = ""
    stream_created: str = ""

    def after(self, event: StoredEvent) -> Position:
        """The position when `event` has been stored."""
        return replace(self, sequence=event.sequence, fingerprint=fingerprint(event.body))

    def in_new_epoch(self, sequence: int, stream_created: str) -> Position:
        """The position before the first event of a new epoch, which is the one after `sequence`."""
        return Position(self.epoch + 1, sequence, "", stream_created)


def fingerprint(body: bytes) -> str:
    """By what an event is known again."""
    return hashlib.blake2b(body, digest_size=16).hexdigest()


def load(cursor: DuckDBPyConnection) -> Position:
    """The position of this database; the beginning for a new one."""
    row = cursor.execute(
        "SELECT stream_epoch, sequence, fingerprint, stream_created FROM stream_position"
    ).fetchone()
    return Position(*row) if row else Position()


def save(cursor: DuckDBPyConnection, position: Position) -> None:
    """Writes the position, within the transaction that is open."""
    values = [position.epoch, position.sequence, position.fingerprint, position.stream_created]
    cursor.execute("DELETE FROM stream_position")
    cursor.execute("INSERT INTO stream_position VALUES (?, ?, ?, ?)", values)
