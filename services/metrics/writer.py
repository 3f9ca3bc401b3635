"""Rows into the database: one transaction for a batch, with the position in the stream.

Whatever kills the process, the rows and the position are either both there or neither: each event becomes one
row, however often it is delivered. All of this blocks, so it runs in the one thread that writes.
"""

from __future__ import annotations

from collections.abc import Sequence

import duckdb
from duckdb import DuckDBPyConnection

from services.chassis.logs import get_logger
from services.metrics import position as positions
from services.metrics.database import Database, damaged, first_line
from services.metrics.decoding import Decoded, Decoder, event_id
from services.metrics.position import Position
from services.metrics.stored_event import StoredEvent
from services.metrics.tables import quoted

UNREAD = "unread_events"
INCOMING = "incoming_batch"
NOT_THE_EVENTS_FAULT = (duckdb.OutOfMemoryException, duckdb.TransactionException)

log = get_logger("metrics.writer")


class Writer:
    """Stores events in their order."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._decoder = Decoder()
        self._cursor: DuckDBPyConnection | None = None
        self.stored = 0
        self.unread = 0

    @property
    def database(self) -> Database:
        """Where it writes."""
        return self._database

    def open(self) -> Position:
        """Opens the database and says how far it is."""
        self._database.open()
        return self.position()

    def position(self) -> Position:
        """How far the database is."""
        self._cursor = self._database.cursor()
        return positions.load(self._cursor)

    def begin_epoch(self, position: Position, why: str) -> None:
        """Stores a position that no event has brought about, and why."""
        cursor = self._open_cursor()
        cursor.execute("BEGIN")
        positions.save(cursor, position)
        cursor.execute("COMMIT")
        self._database.note(why)

    def write(self, events: Sequence[StoredEvent], position: Position) -> Position:
        """Stores all `events`, which follow `position`, and returns the position after them.

        An event that the database does not take is kept as unread. Raises duckdb.Error for faults that are
        the database's own; then nothing of the batch that failed is stored.
        """
        decoded = self._decoder.decode(events, position.epoch)
        after = position.after(events[-1])
        try:
            self._store(decoded, after)
        except duckdb.Error as error:
            if damaged(error) or isinstance(error, NOT_THE_EVENTS_FAULT):
                raise
            return self._write_apart(events, position, error)
        self.stored += len(events)
        self.unread += 0 if decoded.unread is None else decoded.unread.num_rows
        return after

    def holds(self, epoch: int, event: StoredEvent) -> bool:
        """Whether this very event is stored under `epoch` and its own sequence."""
        cursor, key = self._open_cursor(), [epoch, event.sequence]
        where = "WHERE stream_epoch = ? AND sequence = ?"
        for table, column, value in (
            (event.kind, "event_id", event_id(event.body)),
            (UNREAD, "body", event.body.decode(errors="replace")),
        ):
            if table == UNREAD or table in self._decoder.kinds:
                query = f"SELECT {column} FROM {quoted(table)} {where}"
                if cursor.execute(query, key).fetchall() == [(value,)]:
                    return True
        return False

    def _write_apart(
        self, events: Sequence[StoredEvent], position: Position, error: duckdb.Error
    ) -> Position:
        """Finds the event that the database does not take, by halves, and keeps it as unread."""
        if len(events) > 1:
            middle = len(events) // 2
            return self.write(events[middle:], self.write(events[:middle], position))
        log.warning("event kept as unread", sequence=events[0].sequence, why=first_line(error))
        after = position.after(events[0])
        self._store(self._decoder.unreadable(events, position.epoch, first_line(error)), after)
        self.stored += 1
        self.unread += 1
        return after

    def _store(self, decoded: Decoded, after: Position) -> None:
        cursor = self._open_cursor()
        cursor.execute("BEGIN")
        try:
            for name, rows in decoded.by_table(UNREAD):
                cursor.register(INCOMING, rows)
                cursor.execute(f"INSERT INTO {quoted(name)} BY NAME SELECT * FROM {INCOMING}")
            positions.save(cursor, after)
            cursor.execute("COMMIT")
        except duckdb.Error:
            self._roll_back(cursor)
            raise
        finally:
            cursor.unregister(INCOMING)

    def _roll_back(self, cursor: DuckDBPyConnection) -> None:
        try:
            cursor.execute("ROLLBACK")
        except duckdb.Error as error:  # the transaction has ended by itself, or the database is closed
            log.debug("nothing to roll back", why=first_line(error))

    def _open_cursor(self) -> DuckDBPyConnection:
        if self._cursor is None:
            raise RuntimeError("open() comes first")
        return self._cursor
