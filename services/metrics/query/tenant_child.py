"""The process of one statement of a tenant: a database in memory, and nothing else of the mesh.

It is forked from a process that has DuckDB loaded and no thread, no connection and no file. Its other end
(`tenant_run.py`) sends rows, and kills it at the statement's time, whatever one function of one row is at.
"""

from __future__ import annotations

import os
import resource
import signal
from collections.abc import Iterator
from dataclasses import dataclass
from math import ceil
from multiprocessing.connection import Connection
from pathlib import Path

import duckdb
import pyarrow as pa

from schemas.errors import ChoirError, QueryFailed
from schemas.requests.queries import Rows, Sql
from services.metrics.query.own_rows import insert, kinds_of, own_database, shut
from services.metrics.query.reading import named, read
from services.metrics.query.sandbox import FIELD, check
from services.metrics.store.memory_limit import CEILING_BYTES, limit_memory, taken_bytes

KINDS, ROWS, ERROR = b"k", b"r", b"e"
"""The first byte of what it sends: kinds of events whose rows it needs, its own rows, why there are none."""
BESIDE_BYTES = CEILING_BYTES // 4
"""Of a statement, beyond what its database counts: four at once take as much as the service itself."""
SPARE_CPU_S = 5
"""Beyond its time; then the kernel ends it, should whoever asked be gone without having killed it."""


@dataclass(frozen=True)
class TenantStatement:
    """A statement and its limits; `spill` is a folder of its own, `niceness` that of its process."""

    sql: Sql
    views: Path
    spill: Path
    memory_mb: int
    spill_mb: int
    max_bytes: int
    limit_s: float
    niceness: int


def run(job: TenantStatement, connection: Connection) -> None:
    """Answers one statement."""
    _limit(job)
    try:
        reply = ROWS + _rows(job, connection).to_bytes()
    except ChoirError as error:
        reply = _failure(error)
    except duckdb.Error as error:
        reply = _failure(named(error))
    except MemoryError:
        reply = _failure(QueryFailed(f"{FIELD}: it takes more memory than it may have", field=FIELD))
    try:
        connection.send_bytes(reply)
    except OSError:
        os._exit(0)  # nobody wants it any more


def _limit(job: TenantStatement) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # it ends with the service, which may have work to finish
    os.setpriority(os.PRIO_PROCESS, 0, job.niceness)
    limit_memory(job.memory_mb, BESIDE_BYTES + taken_bytes())
    seconds = ceil(job.limit_s) + SPARE_CPU_S
    resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def _rows(job: TenantStatement, connection: Connection) -> Rows:
    with own_database(job.views, job.spill, job.memory_mb, job.spill_mb) as copy:
        check(job.sql.statement, copy)
        kinds = kinds_of(job.sql.statement, copy)
        connection.send_bytes(KINDS + " ".join(kinds).encode())
        for kind in kinds:
            insert(copy, kind, _arriving(connection))
        shut(copy)
        return read(copy, job.sql, job.max_bytes)


def _arriving(connection: Connection) -> pa.RecordBatchReader:
    schema = pa.ipc.read_schema(pa.py_buffer(connection.recv_bytes()))

    def batches() -> Iterator[pa.RecordBatch]:
        while data := connection.recv_bytes():
            yield pa.ipc.read_record_batch(pa.py_buffer(data), schema)

    return pa.RecordBatchReader.from_batches(schema, batches())


def _failure(error: ChoirError) -> bytes:
    return ERROR + error.body().model_dump_json(exclude_none=True).encode()
