"""A full disk, a damaged file, a stream that begins anew: survived, and said."""

from __future__ import annotations

import asyncio
import resource
import shutil
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest
from nats.aio.client import Client

from infra.broker.broker import Broker
from infra.broker.provision import provision, provision_at
from infra.testing.hostile.statements import ENDLESS
from infra.testing.mesh import eventually, open_mesh
from infra.testing.plugin import ServiceProcess, SpawnService, connect
from schemas import subjects
from schemas.errors import DeadlineExceeded, MeshUnreachable, NotReady, QueryFailed
from services.client.client import Choir
from services.metrics.ingest.position import Position
from services.metrics.ingest.stream_reader import StreamReader
from services.metrics.service import Metrics
from services.metrics.settings import MetricsSection
from services.metrics.store.database import FILE_NAME
from services.metrics.store.parquet_export import ParquetExport
from services.metrics.store.tables import definitions
from services.metrics.tests.mesh import asking, count_of, fill, has, spawn_metrics, task_completed, value
from services.metrics.tests.test_parquet import opened, rows_in
from services.metrics.tests.test_parquet import stored as stored_events

pytestmark = pytest.mark.long

FIRST, MORE = 3_000, 500


async def stored(choir: Choir, count: int) -> None:
    await eventually(lambda: has(choir, "task_completed", count), 180)


async def test_a_damaged_database_is_set_aside_and_filled_again_from_the_stream(
    mesh_url: str, connection: Client, spawn_service: SpawnService, tmp_path: Path
) -> None:
    folder = tmp_path / "metrics"
    await fill(connection, (task_completed(number) for number in range(FIRST)))
    service = spawn_metrics(spawn_service, folder, mesh_url)
    async with asking(mesh_url) as choir:
        await stored(choir, FIRST)
        await service.stop()
        spoil(folder / FILE_NAME, "middle")
        again = spawn_metrics(spawn_service, folder, mesh_url)
        await again.logged("database set aside", 180)
        await stored(choir, FIRST)
        assert await value(choir, "SELECT count(DISTINCT event_id) FROM task_completed") == FIRST
        assert await value(choir, "SELECT count(*) FROM database_notes WHERE note LIKE '%set-aside%'") == 1
        lease = await again.wait_ready(connection)
    assert lease.problem is not None and "set-aside" in lease.problem.message
    assert len(list(folder.glob(f"{FILE_NAME}.set-aside-*"))) >= 1


@pytest.mark.parametrize("damage", ["front", "middle", "cut short", "no database"])
def test_damage_of_any_kind_is_found_when_the_file_is_opened(damage: str, tmp_path: Path) -> None:
    database, writer = opened(tmp_path)
    writer.write(stored_events(1, FIRST), Position())
    database.close()
    spoil(database.path, damage)
    database, writer = opened(tmp_path)
    assert database.set_aside is not None
    assert writer.position() == Position()
    for table in definitions():
        database.verify(table)
    database.close()


async def test_damage_that_shows_later_leads_to_a_new_database_as_well(
    mesh_url: str, connection: Client, tmp_path: Path
) -> None:
    service = Metrics(MetricsSection(folder=tmp_path, export_interval_s=0))
    await service.start(open_mesh(connection, "metrics"))
    await fill(connection, (task_completed(number) for number in range(50)))
    async with asking(mesh_url) as choir:
        await stored(choir, 50)
        service._ingest.distrust("a block is not what was written")
        notes = "SELECT count(*) FROM database_notes WHERE note LIKE '%not what was written%'"
        await eventually(lambda: _one(choir, notes))
        await stored(choir, 50)
    problem = service.load().problem
    assert problem is not None and "filled from the stream" in problem.message
    await service.stop()


@pytest.mark.soak
async def test_housekeeping_goes_on_after_the_database_was_closed_and_opened_again(
    mesh_url: str, connection: Client, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    exports = 0

    def export(self: ParquetExport, run: Callable[[ParquetExport], int] = ParquetExport.run) -> int:
        nonlocal exports
        exports += 1
        return run(self)

    service, mesh = (
        Metrics(MetricsSection(folder=tmp_path, export_interval_s=0.01)),
        open_mesh(connection, "metrics"),
    )
    await service.start(mesh)
    ingest = service._ingest
    await fill(connection, (task_completed(number) for number in range(50)))
    async with asking(mesh_url) as choir:
        await stored(choir, 50)
    await ingest.in_writer(ingest._database.close)
    shutil.rmtree(tmp_path / "parquet" / "task_completed", ignore_errors=True)
    monkeypatch.setattr(ParquetExport, "run", export)
    await eventually(lambda: exports > 1 or mesh.loops.failure)
    await ingest.in_writer(ingest._writer.open)
    await fill(connection, (task_completed(number) for number in range(50, 60)))
    await eventually(lambda: rows_in_files(tmp_path) == 60 or mesh.loops.failure)
    assert mesh.loops.failure is None
    await service.stop()


def rows_in_files(folder: Path) -> int:
    return rows_in(folder) if list(folder.glob("parquet/task_completed/*.parquet")) else 0


async def _one(choir: Choir, statement: str) -> bool:
    return bool(await value(choir, statement) == 1)


@pytest.mark.parametrize("arrow", [False, True])
async def test_a_statement_at_work_does_not_keep_a_damaged_database_in_service(
    arrow: bool, mesh_url: str, connection: Client, tmp_path: Path
) -> None:
    service = Metrics(MetricsSection(folder=tmp_path, export_interval_s=0))
    await service.start(open_mesh(connection, "metrics"))
    await fill(connection, (task_completed(number) for number in range(50)))
    async with asking(mesh_url) as choir:
        await stored(choir, 50)
        slow = asyncio.create_task(choir.sql(ENDLESS[1], timeout_s=2, arrow=arrow))
        await eventually(lambda: service._questions.busy)
        service._ingest.distrust("a block is not what was written")
        notes = "SELECT count(*) FROM database_notes WHERE note LIKE '%not what was written%'"
        await eventually(lambda: _one(choir, notes))
        await stored(choir, 50)
        with pytest.raises((DeadlineExceeded, NotReady)):
            await slow
    await service.stop()


def spoil(file: Path, damage: str) -> None:
    """What a failing disk may leave of a file."""
    size = file.stat().st_size
    if damage == "no database":
        file.write_bytes(b"this is not a database\n" * 1_000)
    elif damage == "cut short":
        with file.open("r+b") as database:
            database.truncate(size // 2)
    else:
        with file.open("r+b") as database:
            database.seek(0 if damage == "front" else 16_384)
            database.write(b"\xde\xad\xbe\xef" * (2_048 if damage == "front" else size // 5))


async def test_on_a_full_disk_it_waits_for_room_says_so_and_loses_nothing(
    mesh_url: str, connection: Client, spawn_service: SpawnService, tmp_path: Path
) -> None:
    """The disk is full at the edge of the process: no file may grow (RLIMIT_FSIZE), whoever runs the test."""
    await fill(connection, (task_completed(number) for number in range(FIRST)))
    service = spawn_metrics(spawn_service, tmp_path / "metrics", mesh_url, batch_rows=200)
    async with asking(mesh_url) as choir:
        await stored(choir, FIRST)
        no_file_may_grow(service)
        await fill(connection, (task_completed(number) for number in range(FIRST, FIRST + MORE)))
        lease = await service.wait_state(connection, "broken", 180)
        assert lease.problem is not None and "cannot be stored now" in lease.problem.message
        assert await value(choir, "SELECT 1") == 1, "questions are answered meanwhile"
        every_file_may_grow(service)
        await stored(choir, FIRST + MORE)
        assert await value(choir, "SELECT count(DISTINCT event_id) FROM task_completed") == FIRST + MORE
        assert (await service.wait_ready(connection)).problem is None
    assert "events are stored again" in service.log()


@pytest.mark.soak
async def test_on_a_disk_that_is_nearly_full_events_wait_in_the_stream_until_there_is_room(
    mesh_url: str, connection: Client, spawn_service: SpawnService, disk: Path
) -> None:
    """A real disk of 192 MiB, on which the broker's store could lie as well: what is left is left to it."""
    folder, least = disk / "metrics", 64 * 1024**2
    service = spawn_metrics(spawn_service, folder, mesh_url, min_free_bytes=least, export_interval_s=0.2)
    await fill(connection, (task_completed(number) for number in range(FIRST)))
    async with asking(mesh_url) as choir:
        await stored(choir, FIRST)
        filler = disk / "filler"
        await asyncio.to_thread(filler.write_bytes, bytes(shutil.disk_usage(disk).free - least + 1024**2))
        lease = await service.wait_state(connection, "broken", 180)
        assert lease.problem is not None and "the disk is nearly full" in lease.problem.message
        free = shutil.disk_usage(disk).free
        await fill(connection, (task_completed(number) for number in range(FIRST, FIRST + MORE)))
        assert await count_of(choir, "task_completed") == FIRST, "questions are answered meanwhile"
        assert free - shutil.disk_usage(disk).free < 1024**2
        filler.unlink()
        await stored(choir, FIRST + MORE)
        assert (await service.wait_ready(connection)).problem is None


def no_file_may_grow(service: ServiceProcess) -> None:
    psutil.Process(service.pid).rlimit(psutil.RLIMIT_FSIZE, (1_024, resource.RLIM_INFINITY))


def every_file_may_grow(service: ServiceProcess) -> None:
    endless = (resource.RLIM_INFINITY, resource.RLIM_INFINITY)
    psutil.Process(service.pid).rlimit(psutil.RLIMIT_FSIZE, endless)


@pytest.mark.soak
async def test_a_stream_that_is_made_anew_is_read_from_its_beginning(
    own_broker: Broker, spawn_service: SpawnService, tmp_path: Path
) -> None:
    client = await connect(own_broker.url)
    await fill(client, (task_completed(number) for number in range(100)))
    spawn_metrics(spawn_service, tmp_path / "metrics", own_broker.url)
    async with asking(own_broker.url) as choir:
        await stored(choir, 100)
        await client.jetstream().delete_stream(subjects.EVENTS_STREAM)
        await provision(client, ())
        await fill(client, (task_completed(number) for number in range(100, 160)))
        await stored(choir, 160)
        keys = "SELECT count(DISTINCT (stream_epoch, sequence)), max(stream_epoch) FROM task_completed"
        assert (await choir.sql(keys)).rows == ((160, 1),)
        assert await value(choir, "SELECT count(*) FROM database_notes WHERE note LIKE '%made anew%'") == 1
    await client.close()


async def test_a_stream_that_was_purged_of_what_was_stored_is_read_on_and_nothing_is_missing(
    mesh_url: str, connection: Client, spawn_service: SpawnService, tmp_path: Path
) -> None:
    service = spawn_metrics(spawn_service, tmp_path / "metrics", mesh_url)
    await fill(connection, (task_completed(number) for number in range(100)))
    async with asking(mesh_url) as choir:
        await stored(choir, 100)
        await connection.jetstream().purge_stream(subjects.EVENTS_STREAM)
        await fill(connection, (task_completed(number) for number in range(100, 150)))
        await stored(choir, 150)
        assert await value(choir, "SELECT max(stream_epoch) FROM task_completed") == 0
        assert await count_of(choir, "missing_events") == 0
        assert (await service.wait_ready(connection)).problem is None


@pytest.mark.soak
async def test_what_the_stream_dropped_before_it_was_stored_is_named_in_database_and_lease(
    own_broker: Broker, spawn_service: SpawnService, tmp_path: Path
) -> None:
    """Nobody stores while the stream overflows: its limit is set low, so that little is enough."""
    folder, client = tmp_path / "metrics", await connect(own_broker.url)
    before = spawn_metrics(spawn_service, folder, own_broker.url)
    await fill(client, (task_completed(number) for number in range(100)))
    async with asking(own_broker.url) as choir:
        await stored(choir, 100)
        await before.stop()
        config = (await client.jetstream().stream_info(subjects.EVENTS_STREAM)).config
        await client.jetstream().update_stream(config, max_msgs=50)
        await fill(client, (task_completed(number) for number in range(100, 300)))
        after = spawn_metrics(spawn_service, folder, own_broker.url)
        await eventually(lambda: missing_is_told(choir), 180)
        (gone,) = (await choir.sql("SELECT first_sequence, last_sequence FROM missing_events")).rows
        holes = (
            "SELECT previous + 1, sequence - 1 FROM (SELECT sequence, lag(sequence) OVER (ORDER BY sequence) "
        )
        holes += "AS previous FROM events) WHERE sequence > previous + 1"
        assert (await choir.sql(holes)).rows == (gone,), "just what no row is there for"
        assert await value(choir, "SELECT after_at < before_at FROM missing_events")
        assert await value(choir, "SELECT note FROM database_notes WHERE note LIKE '%missing%'")
        await eventually(lambda: says(after, client, f"numbers {gone[0]} to {gone[1]}"))
    await client.close()


async def says(service: ServiceProcess, client: Client, text: str) -> bool:
    problem = (await service.wait_ready(client)).problem
    return problem is not None and text in problem.message


async def missing_is_told(choir: Choir) -> bool:
    try:
        return await count_of(choir, "missing_events") > 0
    except MeshUnreachable:
        return False


def test_what_was_gone_before_a_database_began_is_noted_and_no_problem(tmp_path: Path) -> None:
    database, writer = opened(tmp_path)
    position = writer.write(stored_events(101, 5), Position())
    assert writer.missing is None
    writer.write([*stored_events(106, 2), *stored_events(110, 1)], position)
    assert writer.missing is not None and writer.missing.startswith("2 events are missing")
    assert "numbers 108 to 109" in writer.missing
    database.close()
    database, writer = opened(tmp_path)
    assert writer.missing is not None, "a restart does not make it good"
    with database.cursor() as cursor:
        ranges = "SELECT first_sequence, last_sequence, after_at IS NULL FROM missing_events ORDER BY ALL"
        assert cursor.execute(ranges).fetchall() == [(1, 100, True), (108, 109, False)]
        cursor.execute("UPDATE missing_events SET noticed_at = noticed_at - INTERVAL 25 HOUR")
    writer.look_for_missing()
    assert writer.missing is None, "after a day it is only history"
    database.close()


async def test_an_ingest_that_ends_by_a_fault_of_ours_ends_the_service(
    connection: Client, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise ZeroDivisionError("nobody thought of this")

    monkeypatch.setattr(StreamReader, "take", fail)
    service, mesh = (
        Metrics(MetricsSection(folder=tmp_path, export_interval_s=0)),
        open_mesh(connection, "metrics"),
    )
    await service.start(mesh)
    await eventually(lambda: mesh.loops.failure is not None)
    assert "nobody thought of this" in (mesh.loops.failure or "")
    await service.stop()


@pytest.mark.soak
async def test_a_stream_that_lost_its_tail_and_gave_its_numbers_again_loses_no_row(
    tmp_path: Path, spawn_service: SpawnService
) -> None:
    """A broker that crashed before it had written comes back with an older stream: the store is put back."""
    folder, kept = tmp_path / "own", tmp_path / "kept"
    async with Broker(folder, prepare=lambda url: provision_at(url, ())) as broker:
        client = await connect(broker.url)
        await fill(client, (task_completed(number) for number in range(100)))
        await broker.stop()
        await asyncio.to_thread(shutil.copytree, folder / "store", kept)
        await broker.start()
        await fill(client, (task_completed(number) for number in range(100, 130)))
        spawn_metrics(spawn_service, tmp_path / "metrics", broker.url)
        async with asking(broker.url) as choir:
            await stored(choir, 130)
            await broker.stop()
            await asyncio.to_thread(shutil.rmtree, folder / "store")
            await asyncio.to_thread(shutil.copytree, kept, folder / "store")
            await broker.start()
            await fill(client, (task_completed(number) for number in range(200, 260)))
            await stored(choir, 190)
            assert await value(choir, "SELECT count(DISTINCT event_id) FROM task_completed") == 190
            again = "SELECT min(sequence), max(sequence) FROM task_completed WHERE stream_epoch = 1"
            assert (await choir.sql(again)).rows == ((101, 160),)
        await client.close()


async def test_what_no_version_of_ours_can_read_is_kept_as_it_came_and_counted(
    mesh_url: str, connection: Client, spawn_service: SpawnService, tmp_path: Path
) -> None:
    good = task_completed(1).to_bytes()
    bodies = {
        "task_completed": [
            good,
            good.replace(b'"schema_version":1', b'"schema_version":2'),
            good.replace(b'"model"', b'"modell"'),
            good.replace(b'"prompt_tokens":12', b'"prompt_tokens":"many"'),
            good.replace(b'"alpha"', b'"\\ud800"', 1),
            good + b"\n" + good,
            b"",
            b"{",
            b"\xff\xfe",
            b"null",
        ],
        "task_dreamt": [good],
        "service_stopped": [good],
    }
    for kind, several in bodies.items():
        for body in several:
            await connection.publish(subjects.event("agent", kind), body)
    await connection.flush()
    spawn_metrics(spawn_service, tmp_path / "metrics", mesh_url)
    async with asking(mesh_url) as choir:
        total = sum(map(len, bodies.values()))
        await eventually(lambda: has(choir, "unread_events", total - 1))
        assert await count_of(choir, "task_completed") == 1
        kinds = await choir.sql("SELECT kind, schema_version, why, body FROM unread_events ORDER BY sequence")
    assert [row[1] for row in kinds.rows][:2] == ["2", "1"]
    assert kinds.rows[0][2].startswith("schema_version") and kinds.rows[1][2].startswith("model")
    assert ("task_dreamt", "1", "no kind of this version", good.decode()) in kinds.rows


async def test_a_statement_that_makes_a_giant_of_a_string_fails_under_the_ceiling_and_the_service_lives_on(
    mesh_url: str, connection: Client, spawn_service: SpawnService, tmp_path: Path
) -> None:
    service = spawn_metrics(spawn_service, tmp_path / "metrics", mesh_url)
    await service.wait_ready(connection)
    async with asking(mesh_url) as choir:
        for statement in (
            "SELECT length(repeat('x', 4000000000))",
            "SELECT max(length(repeat('x', 900000000 + range::INTEGER))) FROM range(10)",
        ):
            with pytest.raises((QueryFailed, DeadlineExceeded)):
                await choir.sql(statement)
        await fill(connection, (task_completed(number) for number in range(20)))
        await stored(choir, 20)
    assert service.alive
