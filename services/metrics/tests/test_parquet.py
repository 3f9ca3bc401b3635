"""The rows as files that any DuckDB can open, and what goes when it is too old or too much."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import duckdb
from nats.aio.client import Client

from infra.testing.mesh import eventually
from infra.testing.plugin import SpawnService
from services.metrics.ingest.position import Position
from services.metrics.ingest.stored_event import StoredEvent
from services.metrics.ingest.writer import Writer
from services.metrics.settings import VIEWS_FOLDER
from services.metrics.store.database import Database
from services.metrics.store.parquet_export import FILE_TIME, ParquetExport
from services.metrics.store.retention import drop_files, drop_rows, used_bytes, utc_now
from services.metrics.tests.mesh import fill, spawn_metrics, task_completed


def opened(folder: Path) -> tuple[Database, Writer]:
    database = Database(folder, VIEWS_FOLDER, memory_mb=128)
    writer = Writer(database)
    writer.open()
    return database, writer


def stored(first: int, count: int, hours_ago: float = 0) -> list[StoredEvent]:
    at_us = int((utc_now() - timedelta(hours=hours_ago)).timestamp() * 1e6)
    return [
        StoredEvent(number, at_us, "choir.event.agent.task_completed", task_completed(number).to_bytes())
        for number in range(first, first + count)
    ]


def rows_in(folder: Path) -> int:
    with duckdb.connect() as anybody:
        files = f"{folder}/parquet/task_completed/*.parquet"
        row = anybody.execute("SELECT count(*) FROM read_parquet(?)", [files]).fetchone()
    return int(row[0]) if row else 0


async def test_any_duckdb_opens_the_files_while_the_service_runs(
    mesh_url: str, connection: Client, spawn_service: SpawnService, tmp_path: Path
) -> None:
    folder = tmp_path / "metrics"
    service = spawn_metrics(spawn_service, folder, mesh_url, export_interval_s=0.1)
    await service.wait_ready(connection)
    await fill(connection, (task_completed(number) for number in range(300)))
    files = folder / "parquet" / "task_completed"
    await eventually(lambda: any(files.glob("*.parquet")) and rows_in(folder) == 300)
    assert service.alive


def test_an_hour_with_new_rows_is_written_anew_and_no_other(tmp_path: Path) -> None:
    database, writer = opened(tmp_path)
    export = ParquetExport(database)
    position = writer.write(stored(1, 10, hours_ago=2), Position())
    assert export.run() == 1
    assert export.run() == 0
    position = writer.write(stored(11, 5), position)
    assert export.run() == 1
    writer.write(stored(16, 5), position)
    assert export.run() >= 1
    assert rows_in(tmp_path) == 20
    assert not list(tmp_path.glob("parquet/*/*.part"))
    database.close()


def test_a_database_with_fewer_rows_does_not_overwrite_a_file_that_has_more(tmp_path: Path) -> None:
    database, writer = opened(tmp_path)
    writer.write(stored(1, 10, hours_ago=2), Position())
    ParquetExport(database).run()
    database.begin_anew("a test")
    writer.position()
    writer.write(stored(8, 3, hours_ago=2), Position())
    ParquetExport(database).run()
    assert rows_in(tmp_path) == 10
    database.close()


def test_what_is_too_old_goes(tmp_path: Path) -> None:
    database, writer = opened(tmp_path)
    position = writer.write(stored(1, 10, hours_ago=50), Position())
    writer.write(stored(11, 7), position)
    ParquetExport(database).run()
    assert drop_rows(database, keep_days=1, keep_bytes=10**12) == 10
    assert drop_files(database.parquet, keep_days=1, keep_bytes=10**12) == 1
    assert rows_in(tmp_path) == 7
    assert drop_rows(database, keep_days=1, keep_bytes=10**12) == 0
    database.close()


def test_what_is_too_much_goes_hour_by_hour_and_the_last_hour_stays(tmp_path: Path) -> None:
    database, writer = opened(tmp_path)
    position = Position()
    for hour in range(4):
        position = writer.write(stored(1 + 2_000 * hour, 2_000, hours_ago=10 - hour), position)
    with database.cursor() as cursor:
        cursor.execute("CHECKPOINT")
    used = used_bytes(database)
    assert drop_rows(database, keep_days=30, keep_bytes=int(used * 0.6)) == 4_000
    assert drop_rows(database, keep_days=30, keep_bytes=1) in (2_000, 0)
    with database.cursor() as cursor:
        left = cursor.execute("SELECT count(*), min(sequence) FROM task_completed").fetchone()
    assert left == (2_000, 6_001)
    database.close()


def test_the_oldest_files_go_when_they_are_too_many(tmp_path: Path) -> None:
    folder = tmp_path / "task_completed"
    folder.mkdir()
    names = [(utc_now() - timedelta(hours=hours)).strftime(FILE_TIME) for hours in (9, 8, 7)]
    for name in names:
        (folder / f"{name}.parquet").write_bytes(b"x" * 100)
    assert drop_files(tmp_path, keep_days=30, keep_bytes=250) == 1
    assert [file.stem for file in sorted(folder.iterdir())] == names[1:]
