"""One statement of a user on a cursor of its own: checked, read-only, and cut off at its limits.

All of this blocks, so it runs in a thread; `interrupt` may be called from any other.
"""

from __future__ import annotations

import base64
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import duckdb
import pyarrow as pa
from duckdb import DuckDBPyConnection
from pydantic_core import to_json

from schemas.errors import ChoirError, DeadlineExceeded, NotReady, QueryFailed
from schemas.requests.queries import RowColumn, Rows, Sql
from services.metrics.query.json_values import plain
from services.metrics.query.own_rows import fill, own_database
from services.metrics.query.sandbox import FIELD, check, failed
from services.metrics.store.database import Database

CHUNK_ROWS = 2_048
BASE64_GROWTH = 4 / 3


class StatementRun:
    """One statement, for at most `max_rows` rows and `max_bytes` of reply. With `own_of` it sees the rows of
    that tenant alone."""

    def __init__(
        self, database: Database, sql: Sql, max_rows: int, max_bytes: int, own_of: str | None = None
    ) -> None:
        self._database = database
        self._own_of = own_of
        self._cursor: DuckDBPyConnection | None = None
        self._cut_off = False
        self.begun = False
        self._in_hand = threading.Lock()
        self._sql = sql
        self._max_rows = min(sql.max_rows, max_rows)
        self._max_bytes = max_bytes

    def interrupt(self) -> None:
        """Cuts the statement off: it does not begin, or ends if it runs at this moment."""
        with self._in_hand:
            self._cut_off = True
            if self._cursor is not None:
                self._cursor.interrupt()

    def rows(self) -> Rows:
        """The rows of the statement.

        Raises QueryRefused, QueryFailed, DeadlineExceeded, or NotReady if the database is opened again.
        """
        self.begun = True
        started_s = time.perf_counter()
        try:
            rows = self._of_all() if self._own_of is None else self._of_one(self._own_of)
        except duckdb.InterruptException as error:
            raise self._interrupted() from error
        except duckdb.Error as error:
            raise named(error) from error
        return rows.model_copy(update={"elapsed_ms": (time.perf_counter() - started_s) * 1000})

    def _of_all(self) -> Rows:
        with self._database.cursor() as cursor, self._interruptible(cursor):
            check(self._sql.statement, cursor)
            return self._read(cursor)

    def _of_one(self, tenant: str) -> Rows:
        with own_database(self._database) as copy:
            with self._interruptible(copy):
                check(self._sql.statement, copy)
            with self._database.cursor() as cursor, self._interruptible(cursor):
                fill(copy, cursor, tenant, self._sql.statement)
            with self._interruptible(copy):
                return self._read(copy)

    def _read(self, cursor: DuckDBPyConnection) -> Rows:
        cursor.execute("BEGIN TRANSACTION READ ONLY")
        return self._in_arrow(cursor) if self._sql.format == "arrow" else self._in_json(cursor)

    @contextmanager
    def _interruptible(self, cursor: DuckDBPyConnection) -> Iterator[None]:
        """Within it `interrupt` reaches the cursor; after it the cursor may be closed."""
        with self._in_hand:
            if self._cut_off:
                raise self._interrupted()
            self._cursor = cursor
        try:
            yield
        finally:
            with self._in_hand:
                self._cursor = None

    def _interrupted(self) -> ChoirError:
        if self._cut_off:
            return DeadlineExceeded(f"{FIELD}: it was cut off at its time limit")
        return NotReady("the event database is opened again, try again", retry_after_s=0.5)

    def _in_json(self, cursor: DuckDBPyConnection) -> Rows:
        cursor.execute(self._sql.statement, self._sql.parameters or None)
        columns = _columns([column[:2] for column in cursor.description or []])
        rows: list[tuple[Any, ...]] = []
        room = self._max_bytes - sum(len(to_json(column)) + 1 for column in columns)
        while chunk := cursor.fetchmany(CHUNK_ROWS):
            for found in chunk:
                row = tuple(plain(value) for value in found)
                room -= len(to_json(row)) + 1
                if room < 0 or len(rows) == self._max_rows:
                    return Rows(columns=columns, rows=tuple(rows), row_count=len(rows), truncated=True)
                rows.append(row)
        return Rows(columns=columns, rows=tuple(rows), row_count=len(rows))

    def _in_arrow(self, cursor: DuckDBPyConnection) -> Rows:
        relation = cursor.sql(self._sql.statement, params=self._sql.parameters or None)
        columns = _columns(zip(relation.columns, relation.types, strict=True))
        reader = relation.to_arrow_reader(CHUNK_ROWS)
        batches: list[pa.RecordBatch] = []
        count = size = 0
        room = int(self._max_bytes / BASE64_GROWTH)
        with reader:  # one that is left open keeps the database, and nobody could open the file again
            for batch in reader:
                batches.append(batch)
                count, size = count + batch.num_rows, size + batch.nbytes
                if count > self._max_rows or size > room:
                    break
        table = pa.Table.from_batches(batches, reader.schema)
        stream, kept = fitting(table.slice(0, self._max_rows), room)
        return Rows(
            columns=columns,
            arrow=base64.b64encode(stream).decode(),
            row_count=kept,
            truncated=kept < table.num_rows,
        )


def _columns(described: Iterable[Sequence[Any]]) -> tuple[RowColumn, ...]:
    return tuple(RowColumn(name=str(name), type=str(sql_type)) for name, sql_type in described)


def fitting(table: pa.Table, room: int) -> tuple[bytes, int]:
    """As many rows from the front as an IPC stream of `room` bytes holds, and how many they are."""
    while True:
        stream = ipc_stream(table)
        if len(stream) <= room or table.num_rows == 0:
            return stream, table.num_rows
        table = table.slice(0, min(table.num_rows - 1, int(table.num_rows * 0.9 * room / len(stream))))


def ipc_stream(table: pa.Table) -> bytes:
    """A table as an Arrow IPC stream."""
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    return bytes(sink.getvalue())


def named(error: duckdb.Error) -> ChoirError:
    """An error of DuckDB as ours."""
    if isinstance(error, duckdb.OutOfMemoryException):
        return QueryFailed(
            f"{FIELD}: it needs more memory than the event database has; narrow it down (a time range, "
            "fewer groups), or raise memory_mb in section [metrics]",
            field=FIELD,
        )
    return failed(error)
