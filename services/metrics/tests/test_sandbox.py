"""Statements that would do more than read are refused, those that never end are cut off, and it lives on."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import AsyncIterator
from pathlib import Path

import duckdb
import pytest
import pytest_asyncio
from nats.aio.client import Client

from infra.testing.hostile.statements import ENDLESS, GREEDY
from infra.testing.mesh import eventually, open_mesh
from infra.testing.plugin import SpawnService
from schemas import subjects
from schemas.errors import (
    DeadlineExceeded,
    InvalidRequest,
    MeshUnreachable,
    NotReady,
    QueryFailed,
    QueryRefused,
)
from schemas.nodes.lease import NodeLease
from schemas.requests.queries import Rows, Sql
from schemas.subjects import SQL, door
from services.client.client import Choir
from services.metrics.low_priority import low_niceness
from services.metrics.query.own_rows import own_database
from services.metrics.service import Metrics
from services.metrics.settings import VIEWS_FOLDER, MetricsSection
from services.metrics.store.database import Database
from services.metrics.tests.mesh import asking, count_of, fill, has, spawn_metrics, task_completed

ROWS = 50
SORTED = "SELECT range FROM range(20000000) ORDER BY hash(range)"
"""What takes more than 100 MiB."""

WRITES = (
    "CREATE TABLE mine (a INTEGER)",
    "CREATE OR REPLACE VIEW tasks AS SELECT 1",
    "CREATE TEMP TABLE mine AS SELECT 1",
    "CREATE MACRO f(a) AS a + 1",
    "CREATE SECRET s (TYPE s3)",
    "INSERT INTO task_completed (event_id) VALUES ('forged')",
    "UPDATE task_completed SET model = 'forged'",
    "DELETE FROM task_completed",
    "TRUNCATE task_completed",
    "DROP TABLE task_completed",
    "ALTER TABLE task_completed DROP COLUMN model",
    "WITH gone AS (DELETE FROM task_completed RETURNING 1) SELECT * FROM gone",
    "WITH forged AS (INSERT INTO database_notes VALUES (now(), 'x') RETURNING 1) FROM forged",
    "MERGE INTO task_completed USING (SELECT 1 AS a) ON a = 2 WHEN NOT MATCHED THEN INSERT DEFAULT VALUES",
    "VACUUM",
    "CHECKPOINT",
    "FORCE CHECKPOINT",
    "SELECT * FROM checkpoint()",
    "ANALYZE",
    "BEGIN",
    "COMMIT",
    "COMMENT ON TABLE task_completed IS 'mine'",
)
FILES = (
    "COPY task_completed TO '/tmp/stolen.csv'",
    "COPY task_completed FROM '/etc/passwd'",
    "COPY (SELECT 1) TO '/tmp/stolen.parquet' (FORMAT parquet)",
    "EXPORT DATABASE '/tmp/stolen'",
    "IMPORT DATABASE '/tmp/stolen'",
    "ATTACH '/tmp/other.duckdb' AS other",
    "ATTACH ':memory:' AS other",
    "DETACH events",
    "USE memory",
    "SELECT * FROM read_csv('/etc/passwd')",
    "SELECT * FROM read_text('/etc/hostname')",
    "SELECT * FROM read_blob('/etc/*')",
    "SELECT * FROM read_json('/etc/passwd')",
    "SELECT * FROM read_parquet('*.parquet')",
    "SELECT * FROM parquet_metadata('x.parquet')",
    "SELECT * FROM glob('/*')",
    "SELECT * FROM sniff_csv('/etc/passwd')",
    "SELECT * FROM '/etc/passwd'",
    "SELECT * FROM 'events.duckdb'",
    "FROM '../parquet/task_completed/x.parquet'",
    "SELECT (SELECT count(*) FROM read_csv('/etc/passwd'))",
    "SELECT * FROM task_completed WHERE model IN (SELECT content FROM read_text('/etc/hostname'))",
    "WITH f AS (FROM glob('/etc/*')) SELECT * FROM f",
    "/* SELECT 1 */ COPY task_completed TO '/tmp/stolen.csv' -- SELECT",
    "SELECT getenv('HOME')",
    "SELECT * FROM query('COPY task_completed TO ''/tmp/stolen.csv''')",
    "SELECT * FROM query_table('task_completed')",
    "SELECT * FROM duckdb_settings()",
    "SELECT * FROM duckdb_secrets()",
    "SELECT * FROM duckdb_logs()",
    "SELECT * FROM enable_logging()",
    "SELECT * FROM python_map_function()",
    'SELECT * FROM "/state/parquet/task_completed/x".parquet',
    'SELECT * FROM main."/etc/passwd".csv',
    "SELECT current_setting('temp_directory')",
    "SELECT levenshtein(repeat('a', 1000000), repeat('b', 1000000))",
    "SELECT max(Levenshtein(model, 'x')) FROM task_completed",
    "SELECT damerau_levenshtein('a', 'b')",
    "SELECT write_log('forged')",
)
SETTINGS = (
    "INSTALL httpfs",
    "LOAD httpfs",
    "UPDATE EXTENSIONS",
    "SET enable_external_access = true",
    "SET GLOBAL memory_limit = '100GB'",
    "RESET memory_limit",
    "SET threads = 64",
    "PRAGMA database_list",
    "PRAGMA disable_optimizer",
    "CALL pragma_version()",
    "EXPLAIN ANALYZE DELETE FROM task_completed",
    "PREPARE p AS DELETE FROM task_completed",
    "EXECUTE p",
    "SELECT 1; DELETE FROM task_completed",
    "SELECT 1;;SELECT 2",
    "-- nothing but a comment",
    "SELEC 1",
    "SELECT nothing FROM task_completed",
    "SELECT * FROM nowhere",
    "SELECT $missing",
    "SELECT error('boom')",
    "SELECT '\ud7ff' || chr(0) FROM nowhere",
    "SELECT " + "(" * 5_000 + "1" + ")" * 5_000,
)
STUCK = "SELECT jaro_similarity(repeat('ab', 4000000), repeat('ba', 4000000))"


@pytest_asyncio.fixture
async def choir(mesh_url: str, connection: Client, tmp_path: Path) -> AsyncIterator[Choir]:
    """A client of a service with some rows, in this process."""
    section = MetricsSection(folder=tmp_path / "metrics", query_timeout_s=60.0, memory_mb=128)
    service = Metrics(section)
    await service.start(open_mesh(connection, "metrics"))
    await fill(connection, (task_completed(number) for number in range(ROWS)))
    async with asking(mesh_url) as client:
        await eventually(lambda: _full(client))
        yield client
    await service.stop()


async def _full(choir: Choir) -> bool:
    return await count_of(choir, "task_completed") == ROWS


async def test_whatever_would_write_read_files_or_change_settings_is_refused(choir: Choir) -> None:
    for statement in (*WRITES, *FILES, *SETTINGS):
        with pytest.raises((QueryRefused, QueryFailed)) as refused:
            await choir.sql(statement)
        assert refused.value.field == "statement", statement
        assert await count_of(choir, "task_completed") == ROWS, statement
    models = await choir.sql("SELECT DISTINCT model FROM tasks")
    assert models.rows == (("alpha",),)
    assert await count_of(choir, "database_notes") == 1


async def test_a_statement_that_never_ends_is_cut_off_and_the_next_one_is_answered(choir: Choir) -> None:
    for statement in ENDLESS:
        with pytest.raises(DeadlineExceeded):
            pytest.fail(f"{statement}: {await choir.sql(statement, timeout_s=0.3)}")
        assert await count_of(choir, "task_completed") == ROWS


async def test_a_statement_that_wants_too_much_memory_fails_alone(choir: Choir) -> None:
    for statement in GREEDY:
        with pytest.raises((QueryFailed, DeadlineExceeded)):
            await choir.sql(statement, timeout_s=1.0)
        assert await count_of(choir, "task_completed") == ROWS


async def test_millions_of_rows_are_cut_to_what_was_asked_for_and_what_a_message_carries(
    choir: Choir,
) -> None:
    few = await choir.sql("SELECT range FROM range(5000000)", max_rows=7)
    assert (few.row_count, few.truncated, few.rows[-1]) == (7, True, (6,))
    many = await choir.sql("SELECT repeat('x', 1000) FROM range(5000000)", max_rows=100_000)
    assert many.truncated and 500 < many.row_count == len(many.rows) < 1_100
    exact = await choir.sql("SELECT range FROM range(7)", max_rows=7)
    assert (exact.row_count, exact.truncated) == (7, False)
    giant = await choir.sql("SELECT repeat('x', 2000000)")
    assert (giant.row_count, giant.truncated) == (0, True)


async def test_a_statement_of_an_operator_computes_after_whoever_stores_events(choir: Choir) -> None:
    assert (await choir.sql("SELECT 1")).row_count == 1
    threads = [thread for thread in threading.enumerate() if thread.name.startswith("sql")]
    ids = [thread.native_id for thread in threads if thread.native_id is not None]
    assert {os.getpriority(os.PRIO_PROCESS, thread) for thread in ids} == {low_niceness()}


async def test_what_is_no_request_is_answered_with_the_field(choir: Choir) -> None:
    for statement in ("", "   ", "x" * 70_000):
        with pytest.raises(InvalidRequest) as error:
            await choir.sql(statement)
        assert error.value.field == "statement"


async def test_statements_that_never_end_keep_out_neither_events_nor_other_statements(
    choir: Choir, connection: Client
) -> None:
    # Given clients that take whatever a statement may take, again and again
    enough = asyncio.Event()

    async def abuse(statement: str) -> int:
        cut_off = 0
        while not enough.is_set():
            with pytest.raises((DeadlineExceeded, QueryFailed)):
                await choir.sql(statement, timeout_s=1.0)
            cut_off += 1
        return cut_off

    abusing = [asyncio.create_task(abuse(one)) for one in (ENDLESS[1], ENDLESS[2], GREEDY[2])]
    # When events come meanwhile
    await fill(connection, (task_completed(ROWS + number) for number in range(1_000)))
    # Then they are rows, and who asks for these is answered, before one of those has ended by itself
    await eventually(lambda: has(choir, "task_completed", ROWS + 1_000), 180)
    assert not any(task.done() for task in abusing)
    enough.set()
    assert all(times > 0 for times in await asyncio.gather(*abusing))


def test_statements_have_bounds_on_the_disk_and_on_the_cores(tmp_path: Path) -> None:
    """DuckDB's own defaults are nine tenths of the free disk, beside the broker's store, and all cores."""
    database = Database(tmp_path, VIEWS_FOLDER, memory_mb=64, threads=1, spill_mb=8)
    database.open()
    with database.cursor() as cursor:
        found = cursor.execute("SELECT current_setting('threads')").fetchone()
        with pytest.raises(duckdb.OutOfMemoryException, match=r"8\.0 MiB"):
            cursor.execute(SORTED).fetchmany(1)
    database.close()
    assert found == (1,)


def test_a_tenants_statement_takes_no_more_of_the_disk_than_its_part(tmp_path: Path) -> None:
    bounded = own_database(VIEWS_FOLDER, tmp_path, memory_mb=64, spill_mb=8)
    with bounded as copy, pytest.raises(duckdb.OutOfMemoryException, match=r"8\.0 MiB"):
        copy.execute(SORTED).fetchmany(1)


def test_all_statements_of_tenants_share_one_bound_on_the_disk() -> None:
    """Each has a process of its own, and as many run side by side as there are threads."""
    section = MetricsSection(spill_mb=1_000, queries_at_once=4)
    assert section.threads_of_statements == 5
    assert section.spill_mb_of_a_tenants == 200


async def test_a_statement_that_cannot_be_cut_off_ends_the_process_and_not_the_events(
    mesh_url: str, connection: Client, spawn_service: SpawnService, tmp_path: Path
) -> None:
    """Within one row nothing looks whether it is to stop."""
    folder = tmp_path / "metrics"
    first = spawn_metrics(spawn_service, folder, mesh_url)
    await fill(connection, (task_completed(number) for number in range(ROWS)))
    async with asking(mesh_url) as client:
        await eventually(lambda: has(client, "task_completed", ROWS), 180)

        async def ended() -> bool:
            """On a busy machine, the time may be over before it begins; a second has no room beside it."""
            with pytest.raises((DeadlineExceeded, MeshUnreachable, QueryFailed)):
                await client.sql(STUCK, timeout_s=0.5)
            return not first.alive

        await eventually(ended, 180)
        assert first.process.returncode == 1
        second = spawn_metrics(spawn_service, folder, mesh_url)
        await eventually(lambda: has(client, "task_completed", ROWS), 180)

        # The lease tells of it
        assert (problem := (await lease(connection)).problem) is not None
        assert "of the tenant local could not be cut off" in problem.message

        # Told to stop, it does not wait for such a statement either
        asking_on = asyncio.create_task(client.sql(STUCK, timeout_s=30))
        await eventually(lambda: busy(connection), 180)
        assert await second.stop() == 1
        asking_on.cancel()


async def lease(connection: Client) -> NodeLease:
    """What the service says of itself."""
    leases = await connection.jetstream().key_value(subjects.NODES_BUCKET)
    entry = await leases.get(subjects.node_key("metrics", "metrics-1"))
    return NodeLease.read(entry.value or b"")


async def busy(connection: Client) -> bool:
    """Whether it has a statement in work."""
    return bool((await lease(connection)).busy)


async def test_statements_that_wait_for_a_thread_end_at_their_time_and_nothing_else_does(
    mesh_url: str, connection: Client, tmp_path: Path
) -> None:
    """Given one thread, and a long statement in it that ends when it is told to."""
    section = MetricsSection(folder=tmp_path / "metrics", query_timeout_s=60, queries_at_once=1)
    service = Metrics(section)
    await service.start(open_mesh(connection, "metrics"))
    ended: list[bool] = []
    service._questions._end = lambda: ended.append(True)
    async with asking(mesh_url) as client:
        await eventually(lambda: _answered(client))
        long = asyncio.create_task(client.sql(ENDLESS[1], timeout_s=60))
        await eventually(lambda: service._questions.busy)
        with pytest.raises(DeadlineExceeded, match="others took"):
            await client.sql("SELECT 1", timeout_s=0.2)
        (running,) = service._questions._running.values()
        assert running.begun
        await service.stop()
        with pytest.raises((DeadlineExceeded, NotReady, MeshUnreachable)):
            await long
    assert not ended


async def test_a_tenant_whose_statements_never_end_keeps_no_other_tenant_waiting(
    mesh_url: str, connection: Client, tmp_path: Path
) -> None:
    section = MetricsSection(folder=tmp_path / "metrics", query_timeout_s=120, queries_at_once=1)
    service = Metrics(section)
    await service.start(open_mesh(connection, "metrics"))
    async with asking(mesh_url) as client:
        await eventually(lambda: _answered(client))
    endless, short = (
        Sql(statement=one, parameters={}, timeout_s=60).to_bytes() for one in (ENDLESS[1], "SELECT 1 AS n")
    )
    # Given a tenant with as many statements in work, and waiting, as it may have
    inbox = connection.new_inbox()
    for _ in range(6):
        await connection.publish(door("alice", SQL), endless, reply=inbox)
    await eventually(lambda: service._questions.busy > 1)
    # When another one asks, then that is answered before one of those has ended
    reply = await connection.request(door("bob", SQL), short, timeout=60)
    assert Rows.read(reply.data).rows == ((1,),)
    assert service._questions.busy > 1
    await service.stop()


async def _answered(choir: Choir) -> bool:
    try:
        return bool((await choir.sql("SELECT 1", timeout_s=20)).rows)
    except MeshUnreachable:
        return False
