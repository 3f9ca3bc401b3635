"""A database is closed while somebody works with it: who works is cut off, and it can be opened again."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import duckdb
import pyarrow as pa
import pytest

from schemas.errors import InternalError, NotReady
from services.metrics.store import database as database_module
from services.metrics.store.database import SPILL_FOLDER, Database
from services.metrics.tests.test_parquet import opened


class Endless:
    """A table without an end: whoever reads it is at work, and says so."""

    def __init__(self) -> None:
        self.read = threading.Event()
        self.ended = threading.Event()

    def _batches(self) -> Iterator[pa.RecordBatch]:
        batch = pa.record_batch({"a": list(range(100))})
        while not self.ended.is_set():
            yield batch
            self.read.set()

    def count(self, database: Database) -> int:
        """How many rows it has; blocks until it is interrupted, or the table has `ended`."""
        with database.cursor() as cursor:
            reader = pa.RecordBatchReader.from_batches(pa.schema({"a": pa.int64()}), self._batches())
            cursor.register("endless", reader)
            row = cursor.execute("SELECT count(*) FROM endless").fetchone()
        return int(row[0]) if row else 0


def test_who_cannot_be_cut_off_in_time_is_an_error_and_the_file_stays_where_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(database_module, "CUT_OFF_PATIENCE_S", 0.2)
    database, _ = opened(tmp_path)
    began, may_end = threading.Event(), threading.Event()

    def hold() -> None:
        with database.cursor():
            began.set()
            assert may_end.wait(20)

    with ThreadPoolExecutor(1) as threads:
        held = threads.submit(hold)
        assert began.wait(20)
        with pytest.raises(InternalError, match=r"1 who read it did not end within 0\.2 s"):
            database.begin_anew("a block is not what was written")
        may_end.set()
        held.result(20)
    assert [file.name for file in tmp_path.glob("events.duckdb*") if "set-aside" in file.name] == []
    database.begin_anew("a block is not what was written")
    assert database.set_aside is not None, "it can be tried again"
    database.close()


def test_closing_cuts_off_what_is_at_work_and_the_file_can_be_opened_again(tmp_path: Path) -> None:
    database, _ = opened(tmp_path)
    endless = Endless()
    with ThreadPoolExecutor(3) as threads:
        counts = [threads.submit(each.count, database) for each in (endless, Endless(), Endless())]
        assert endless.read.wait(20)
        database.begin_anew("a block is not what was written")
        for count in counts:
            with pytest.raises((duckdb.InterruptException, NotReady)):
                count.result(20)
    with database.cursor() as cursor:
        notes = cursor.execute("SELECT note FROM database_notes WHERE note LIKE '%not what was%'").fetchall()
    assert len(notes) == 1, "this is the new database"
    database.close()


def test_what_the_statements_of_a_killed_service_left_on_the_disk_is_gone_when_it_is_opened_again(
    tmp_path: Path,
) -> None:
    left = tmp_path / SPILL_FOLDER / "statement"
    left.mkdir(parents=True)
    (left / "of-a-tenant.tmp").write_bytes(bytes(1024))
    (left.parent / "of-all.tmp").write_bytes(bytes(1024))
    database, _ = opened(tmp_path)
    assert not list(left.parent.iterdir())
    database.close()
