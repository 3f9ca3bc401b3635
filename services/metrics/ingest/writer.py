"""Writes rows into the database: one transaction for a batch, with the position in the stream.

Whatever kills the process, the rows and the position are either both there or neither: each event becomes one
row, however often it is delivered. All of this blocks, so it runs in the one thread that writes.
"""

from __future__ import annotations

from collections.abc import Sequence

import duckdb
from duckdb import DuckDBPyConnection

from services.chassis.logs import get_logger
from services.metrics.ingest import missing
from services.metrics.ingest import position as positions
from services.metrics.ingest.decoding import Decoded, Decoder, event_id
from services.metrics.ingest.missing import MissingRange
from services.metrics.ingest.position import Position
from services.metrics.ingest.stored_event import StoredEvent
from services.metrics.store.database import Database, damaged, first_line
from services.metrics.store.tables import quoted

UNREAD = "unread_events"
INCOMING = "incoming_batch"
NO_MEMORY = (MemoryError, duckdb.OutOfMemoryException)

log = get_logger("metrics.writer")


class Writer:
    """Stores events in their order.

    `reached` is the position that was committed last; `missing` says what the stream had dropped lately.
    """

    def __init__(self, database: Database) -> None:
        self._database = database
        self._decoder = Decoder()
        self._cursor: DuckDBPyConnection | None = None
        self._undisturbed = False
        self.reached = Position()
        self.missing: str | None = None
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
        self._cursor = self._database.writing_cursor()
        self.reached = positions.load(self._cursor)
        self.missing = missing.problem(self._cursor)
        return self.reached

    def look_for_missing(self) -> None:
        """Brings `missing` up to date."""
        self.missing = missing.problem(self._open_cursor())

    def begin_epoch(self, position: Position, why: str) -> None:
        """Stores a position that no event has brought about, and why."""
        cursor = self._open_cursor()
        cursor.execute("BEGIN")
        positions.save(cursor, position)
        cursor.execute("COMMIT")
        self.reached = position
        self._database.note(why)

    def write(self, events: Sequence[StoredEvent], position: Position) -> Position:
        """Stores all `events`, which follow `position`, and returns the position after them.

        An event that cannot be made a row, or that the database does not take, is kept as unread. Where there
        is no memory statements of users stand back, and then it is stored in smaller parts. Raises
        duckdb.Error or MemoryError for what is no event's fault; `reached` then says what is stored of them.
        """
        after = position.after(events[-1])
        try:
            decoded = self._decoder.decode(events, position.epoch)
            self._store(decoded, after, missing.missing_ranges(events, position))
        except NO_MEMORY:
            if not self._undisturbed:
                return self._write_undisturbed(events, position)
            if len(events) == 1:
                raise
            return self._write_by_halves(events, position)
        except duckdb.Error as error:
            if isinstance(error, duckdb.TransactionException) and not self._undisturbed:
                # Where there is no memory for the end of a transaction, that is what it is called.
                return self._write_undisturbed(events, position)
            if damaged(error) or isinstance(error, duckdb.TransactionException):
                raise
            return self._write_apart(events, position, error)
        except Exception as error:  # noqa: BLE001  (events are anybody's: none of them may end the ingest)
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

    def _write_apart(self, events: Sequence[StoredEvent], position: Position, error: Exception) -> Position:
        """Finds the event that the database does not take, by halves, and keeps it as unread."""
        if len(events) > 1:
            return self._write_by_halves(events, position)
        log.warning("event kept as unread", sequence=events[0].sequence, why=first_line(error))
        after = position.after(events[0])
        decoded = self._decoder.unreadable(events, position.epoch, first_line(error))
        self._store(decoded, after, missing.missing_ranges(events, position))
        self.stored += 1
        self.unread += 1
        return after

    def _write_undisturbed(self, events: Sequence[StoredEvent], position: Position) -> Position:
        """Once more, while no statement of a user has any memory."""
        with self._database.undisturbed():
            self._undisturbed = True
            try:
                return self.write(events, position)
            finally:
                self._undisturbed = False

    def _write_by_halves(self, events: Sequence[StoredEvent], position: Position) -> Position:
        middle = len(events) // 2
        return self.write(events[middle:], self.write(events[:middle], position))

    def _store(self, decoded: Decoded, after: Position, gone: Sequence[MissingRange]) -> None:
        cursor = self._open_cursor()
        try:
            cursor.execute("BEGIN")  # it fails where there was no memory to roll the one before back
            missing.save(cursor, gone)
            for name, rows in decoded.by_table(UNREAD):
                cursor.register(INCOMING, rows)
                cursor.execute(f"INSERT INTO {quoted(name)} BY NAME SELECT * FROM {INCOMING}")
            positions.save(cursor, after)
            cursor.execute("COMMIT")
        except BaseException:
            self._roll_back(cursor)
            raise
        finally:
            cursor.unregister(INCOMING)
        self.reached = after
        if gone:
            self.look_for_missing()
            log.error("events are missing", notes=[missing.note(each) for each in gone])

    def _roll_back(self, cursor: DuckDBPyConnection) -> None:
        try:
            cursor.execute("ROLLBACK")
        except duckdb.Error as error:  # the transaction has ended by itself, or the database is closed
            log.debug("nothing to roll back", why=first_line(error))

    def _open_cursor(self) -> DuckDBPyConnection:
        if self._cursor is None:
            raise RuntimeError("open() comes first")
        return self._cursor
