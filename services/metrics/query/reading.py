"""Reads the rows of a statement, as many as were asked for and as one message carries."""

from __future__ import annotations

import base64
from collections.abc import Iterable, Sequence
from typing import Any

import duckdb
import pyarrow as pa
from duckdb import DuckDBPyConnection
from pydantic_core import to_json

from schemas.errors import ChoirError, QueryFailed
from schemas.requests.queries import RowColumn, Rows, Sql
from services.metrics.query.json_values import plain
from services.metrics.query.sandbox import FIELD, failed

CHUNK_ROWS = 2_048
BASE64_GROWTH = 4 / 3


def read(cursor: DuckDBPyConnection, sql: Sql, max_bytes: int) -> Rows:
    """The rows of a checked statement, in a transaction that can change nothing. Raises duckdb.Error."""
    cursor.execute("BEGIN TRANSACTION READ ONLY")
    return _in_arrow(cursor, sql, max_bytes) if sql.format == "arrow" else _in_json(cursor, sql, max_bytes)


def _in_json(cursor: DuckDBPyConnection, sql: Sql, max_bytes: int) -> Rows:
    cursor.execute(sql.statement, sql.parameters or None)
    columns = _columns([column[:2] for column in cursor.description or []])
    rows: list[tuple[Any, ...]] = []
    room = max_bytes - sum(len(to_json(column)) + 1 for column in columns)
    while chunk := cursor.fetchmany(CHUNK_ROWS):
        for found in chunk:
            row = tuple(plain(value) for value in found)
            room -= len(to_json(row)) + 1
            if room < 0 or len(rows) == sql.max_rows:
                return Rows(columns=columns, rows=tuple(rows), row_count=len(rows), truncated=True)
            rows.append(row)
    return Rows(columns=columns, rows=tuple(rows), row_count=len(rows))


def _in_arrow(cursor: DuckDBPyConnection, sql: Sql, max_bytes: int) -> Rows:
    relation = cursor.sql(sql.statement, params=sql.parameters or None)
    columns = _columns(zip(relation.columns, relation.types, strict=True))
    reader = relation.to_arrow_reader(CHUNK_ROWS)
    batches: list[pa.RecordBatch] = []
    count = size = 0
    room = int(max_bytes / BASE64_GROWTH)
    with reader:  # one that is left open keeps the database, and nobody could open the file again
        for batch in reader:
            batches.append(batch)
            count, size = count + batch.num_rows, size + batch.nbytes
            if count > sql.max_rows or size > room:
                break
    table = pa.Table.from_batches(batches, reader.schema)
    stream, kept = fitting(table.slice(0, sql.max_rows), room)
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
