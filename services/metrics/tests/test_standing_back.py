"""Events come first: a batch that finds no memory gets that of the statements of those who see all rows."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import ExitStack, contextmanager
from pathlib import Path

import duckdb
import numpy as np
import pyarrow as pa
import pytest

from infra.testing.hostile.statements import ENDLESS
from schemas.errors import QueryFailed
from schemas.requests.queries import Sql
from services.metrics.ingest.position import Position
from services.metrics.ingest.writer import Writer
from services.metrics.low_priority import low_niceness
from services.metrics.query.statement_run import OperatorRun
from services.metrics.settings import VIEWS_FOLDER
from services.metrics.store.database import Database
from services.metrics.store.lending import StoodBack
from services.metrics.tests.test_parquet import opened, stored

PATIENCE_S = 180
LEAST_MB = 64
LIST_ROWS = (1_000_000, 100_000, 10_000)
"""Of the lists that take the memory: large ones until there is no room for one more, then smaller ones."""
MOST_LISTS = 100
TICK_S = 0.01
THREADS = Path("/proc/self/task")
EVENTS = 1_000


class Greedy:
    """A statement that keeps a list of so many rows, and takes nothing more until it is cut off."""

    def __init__(self, database: Database, rows: int) -> None:
        self._database = database
        self._rows = rows
        self.failed: type[duckdb.Error] | None = None
        self.tried = threading.Event()
        self.may_end = threading.Event()

    def _batches(self) -> Iterator[pa.RecordBatch]:
        yield pa.record_batch({"a": pa.array(np.arange(self._rows))})
        nothing = pa.record_batch({"a": pa.array([None], pa.int64())})
        self.tried.set()
        while not self.may_end.wait(TICK_S):
            yield nothing

    def run(self) -> None:
        """Raises what the statement raises."""
        with self._database.statement_cursor() as cursor:
            reader = pa.RecordBatchReader.from_batches(pa.schema({"a": pa.int64()}), self._batches())
            cursor.register("own", reader)
            try:
                cursor.execute("SELECT len(list(a) FILTER (a IS NOT NULL)) FROM own").fetchall()
            except duckdb.Error as error:
                self.failed = type(error)
                raise
            finally:
                self.tried.set()


def statement(text: str) -> Sql:
    return Sql(statement=text, parameters={})


@contextmanager
def memory_taken(database: Database) -> Iterator[list[Future[None]]]:
    """Statements that have all the memory between them: of each size one more had no room. They end with the
    context."""
    holding: list[Future[None]] = []
    with ThreadPoolExecutor(MOST_LISTS) as threads, ExitStack() as ending:
        for rows in LIST_ROWS:
            while True:
                greedy = Greedy(database, rows)
                ending.callback(greedy.may_end.set)
                running = threads.submit(greedy.run)
                assert greedy.tried.wait(PATIENCE_S)
                if greedy.failed is not None:
                    assert greedy.failed is duckdb.OutOfMemoryException
                    break
                holding.append(running)
        yield holding


def test_a_batch_that_finds_no_memory_is_stored_and_the_statements_that_have_it_end(tmp_path: Path) -> None:
    database = Database(tmp_path, VIEWS_FOLDER, memory_mb=LEAST_MB, spill_mb=0)
    writer = Writer(database)
    writer.open()
    with memory_taken(database) as greedy:
        assert greedy and not any(each.done() for each in greedy)
        position = writer.write(stored(1, EVENTS), Position())
        _, running = wait(greedy, PATIENCE_S)
        assert not running and {type(each.exception()) for each in greedy} == {StoodBack}
    assert position.sequence == EVENTS and writer.unread == 0
    # And who asks then is answered
    rows = OperatorRun(database, statement("SELECT count(*) FROM task_completed"), 1 << 20).rows()
    assert rows.rows == ((EVENTS,),)
    database.close()


def test_a_transaction_that_could_not_even_be_rolled_back_keeps_nothing_from_being_stored(
    tmp_path: Path,
) -> None:
    database, writer = opened(tmp_path)
    cursor = writer._open_cursor()
    cursor.execute("BEGIN")
    with pytest.raises(duckdb.Error, match="boom"):
        cursor.execute("SELECT error('boom')").fetchall()
    with pytest.raises(duckdb.TransactionException, match="aborted"):
        cursor.execute("BEGIN")
    assert writer.write(stored(1, EVENTS), Position()).sequence == EVENTS
    assert writer.unread == 0
    database.close()


@pytest.mark.skipif(sys.platform != "linux", reason="needs Linux: threads with a priority of their own")
def test_the_threads_that_duckdb_has_for_statements_have_a_low_priority(tmp_path: Path) -> None:
    before = set(THREADS.iterdir())
    database, _ = opened(tmp_path)
    own = {THREADS / str(thread.native_id) for thread in threading.enumerate()}
    started = set(THREADS.iterdir()) - before - own
    assert {os.getpriority(os.PRIO_PROCESS, int(thread.name)) for thread in started} == {low_niceness()}
    database.close()


def test_a_statement_that_stood_back_once_begins_anew(tmp_path: Path) -> None:
    database, _ = opened(tmp_path)
    lent, begun = database.statement_cursor, 0

    @contextmanager
    def cut_off_once() -> Iterator[duckdb.DuckDBPyConnection]:
        nonlocal begun
        begun += 1
        with lent() as cursor:
            if begun == 1:
                raise StoodBack
            yield cursor

    database.statement_cursor = cut_off_once  # type: ignore[method-assign]
    assert OperatorRun(database, statement("SELECT 7"), 1 << 20).rows().rows == ((7,),)
    assert begun == 2
    database.close()


def test_who_has_to_stand_back_is_told_why_and_what_to_do(tmp_path: Path) -> None:
    database, _ = opened(tmp_path)
    with ThreadPoolExecutor(1) as threads:
        run = OperatorRun(database, statement(ENDLESS[1]), 1 << 20)
        running = threads.submit(run.rows)
        while not wait([running], TICK_S).done:
            with database.undisturbed():
                pass
        with pytest.raises(QueryFailed, match=r"events could not be stored beside it.*narrow it down"):
            running.result()
    database.close()
