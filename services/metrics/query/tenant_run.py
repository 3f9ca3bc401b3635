"""One statement of a tenant, in a process of its own that is killed at its time.

All of this blocks, so it runs in a thread; `interrupt` may be called from any other.
"""

from __future__ import annotations

import multiprocessing
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing.connection import Connection
from pathlib import Path

from schemas.errors import ErrorBody, QueryFailed, error_from_body
from schemas.requests.queries import Rows, Sql
from services.metrics.low_priority import low_niceness
from services.metrics.query.own_rows import BATCH_ROWS, own_rows
from services.metrics.query.sandbox import FIELD
from services.metrics.query.statement_run import StatementRun
from services.metrics.query.tenant_child import ERROR, KINDS, TenantStatement, run
from services.metrics.store.database import SPILL_FOLDER, Database

MEMORY_SHARE = 4
"""The copy of one statement may have this part of the memory that all statements have."""
LEAST_MEMORY_MB = 32
GONE = (EOFError, OSError)

FORKED = multiprocessing.get_context("forkserver")
"""Processes are forked from one that is started with the first of them and has loaded what they need."""


class Child:
    """A process with a connection to it."""

    def __init__(self, job: TenantStatement) -> None:
        FORKED.set_forkserver_preload([run.__module__])
        self.connection, theirs = FORKED.Pipe()
        self._process = FORKED.Process(target=run, args=(job, theirs), daemon=True)
        self._process.start()
        theirs.close()

    def interrupt(self) -> None:
        """Kills it, whatever it is at."""
        self._process.kill()

    def close(self) -> None:
        """Waits for its end, which comes at once."""
        self.interrupt()
        self._process.join()
        self.connection.close()


class TenantRun(StatementRun):
    """One statement that sees one tenant's rows, for at most `limit_s` of time and `spill_mb` of the disk."""

    def __init__(
        self, database: Database, sql: Sql, max_bytes: int, tenant: str, limit_s: float, spill_mb: int
    ) -> None:
        super().__init__(database, sql, max_bytes)
        self._tenant = tenant
        self._limit_s = limit_s
        self._spill_mb = spill_mb

    def _read(self) -> Rows:
        with self._child() as child, self._cut_off.reaches(child):
            return self._answer(child.connection)

    @contextmanager
    def _child(self) -> Iterator[Child]:
        spill = Path(tempfile.mkdtemp(dir=self._database.folder / SPILL_FOLDER))
        try:
            child = Child(self._job(spill))
            try:
                yield child
            finally:
                child.close()
        finally:
            shutil.rmtree(spill, ignore_errors=True)

    def _job(self, spill: Path) -> TenantStatement:
        return TenantStatement(
            sql=self._sql,
            views=self._database.views,
            spill=spill,
            memory_mb=max(LEAST_MEMORY_MB, self._database.memory_mb // MEMORY_SHARE),
            spill_mb=self._spill_mb,
            max_bytes=self._max_bytes,
            limit_s=self._limit_s,
            niceness=low_niceness(),
        )

    def _answer(self, connection: Connection) -> Rows:
        kind, body = self._received(connection)
        if kind == KINDS:
            self._send_rows(connection, body.decode().split())
            kind, body = self._received(connection)
        if kind == ERROR:
            raise error_from_body(ErrorBody.model_validate_json(body))
        return Rows.read(body)

    def _send_rows(self, connection: Connection, kinds: list[str]) -> None:
        """Sends the tenant's rows of these kinds as they are at this moment."""
        with self._database.cursor() as source, self._cut_off.reaches(source):
            source.execute("BEGIN TRANSACTION READ ONLY")
            for kind in kinds:
                with source.sql(own_rows(kind, self._tenant)).to_arrow_reader(BATCH_ROWS) as reader:
                    try:
                        connection.send_bytes(reader.schema.serialize())
                        for batch in reader:
                            connection.send_bytes(batch.serialize())
                        connection.send_bytes(b"")
                    except OSError:
                        return  # it takes no more, and says why
            source.execute("ROLLBACK")

    def _received(self, connection: Connection) -> tuple[bytes, bytes]:
        try:
            message = connection.recv_bytes()
        except GONE as error:
            if self._cut_off.was_cut:
                raise self._cut_off.error() from error
            raise QueryFailed(
                f"{FIELD}: its process ended, which has bounds for memory and time; narrow it down",
                field=FIELD,
            ) from error
        return message[:1], message[1:]
