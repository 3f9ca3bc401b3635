"""One statement: of somebody who sees all rows on a cursor of its own, checked, read-only, cut off in time.

All of this blocks, so it runs in a thread; `interrupt` may be called from any other.
"""

from __future__ import annotations

import time
from abc import ABC, abstractmethod

import duckdb

from schemas.errors import QueryFailed
from schemas.requests.queries import Rows, Sql
from services.metrics.query.cut_off import CutOff
from services.metrics.query.reading import named, read
from services.metrics.query.sandbox import FIELD, check
from services.metrics.store.database import Database
from services.metrics.store.lending import StoodBack


class StatementRun(ABC):
    """One statement, for at most `max_bytes` of reply. `begun` says whether a thread is at it."""

    def __init__(self, database: Database, sql: Sql, max_bytes: int) -> None:
        self._database = database
        self._sql = sql
        self._max_bytes = max_bytes
        self._cut_off = CutOff()
        self.begun = False

    def interrupt(self) -> None:
        """Cuts the statement off."""
        self._cut_off.cut()

    def rows(self) -> Rows:
        """The rows of the statement.

        Raises QueryRefused, QueryFailed, DeadlineExceeded, or NotReady if the database is opened again.
        """
        self.begun = True
        started_s = time.perf_counter()
        try:
            rows = self._read()
        except StoodBack as error:
            raise _events_first() from error
        except duckdb.InterruptException as error:
            raise self._cut_off.error() from error
        except duckdb.Error as error:
            raise named(error) from error
        return rows.model_copy(update={"elapsed_ms": (time.perf_counter() - started_s) * 1000})

    @abstractmethod
    def _read(self) -> Rows:
        """The same, with errors of DuckDB as they are."""


def _events_first() -> QueryFailed:
    return QueryFailed(
        f"{FIELD}: it was cut off, for events could not be stored beside it: statements took all the memory "
        "of the event database; narrow it down (a time range, fewer groups), or raise memory_mb in section "
        "[metrics]",
        field=FIELD,
    )


class OperatorRun(StatementRun):
    """A statement of somebody who sees all rows, in this process. It stands back where events need its
    memory, and begins anew once: most that are cut off are not those that took it."""

    def _read(self) -> Rows:
        try:
            return self._read_once()
        except StoodBack:
            return self._read_once()

    def _read_once(self) -> Rows:
        with self._database.statement_cursor() as cursor, self._cut_off.reaches(cursor):
            check(self._sql.statement, cursor)
            return read(cursor, self._sql, self._max_bytes)
