"""A tenant that observes sees its own rows, whatever it types; one that operates sees all."""

from __future__ import annotations

import asyncio
import multiprocessing
import os
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio
from nats.aio.client import Client

from infra.broker.broker import Broker
from infra.broker.provision import provision_at
from infra.host.seeding import seed_tenants
from infra.testing.hostile.statements import ENDLESS, GREEDY
from infra.testing.mesh import eventually, open_mesh
from infra.testing.plugin import connect
from schemas import subjects
from schemas.errors import DeadlineExceeded, QueryFailed, QueryRefused
from schemas.requests.keys import ApiKey, KeyScope, digest_of, new_secret
from schemas.requests.tenants import Tenant
from schemas.subjects import owned_id
from services.chassis.nats.bucket import Bucket, messages
from services.client.client import Choir
from services.metrics.low_priority import low_niceness
from services.metrics.service import Metrics
from services.metrics.settings import MetricsSection
from services.metrics.tests.mesh import fill, has, task_completed

pytestmark = pytest.mark.asyncio(loop_scope="module")

SECRET = "alices-secret"
"""In every row of alice, as her model."""
STUCK = "SELECT jaro_similarity(repeat('ab', 1000000), repeat('ba', 1000000))"
ROWS = {"alice": 5, "bob": 3, "local": 4}
ANSWERED = (
    "SELECT * FROM task_completed",
    "SELECT * FROM main.task_completed",
    "SELECT * FROM events",
    "SELECT * FROM tasks",
    "SELECT * FROM completed_tasks",
    "SELECT * FROM memory.main.task_completed",
    "SELECT (SELECT max(model) FROM main.task_completed)",
    "SELECT * FROM (FROM (SELECT * FROM task_completed))",
    "SELECT 1 WHERE EXISTS (SELECT * FROM task_completed WHERE model LIKE 'alice%')",
    "WITH task_completed AS (SELECT * FROM main.task_completed) SELECT * FROM task_completed",
    "WITH t AS MATERIALIZED (FROM task_completed) FROM t",
    "WITH RECURSIVE t AS (SELECT model FROM task_completed UNION SELECT model FROM tasks) FROM t",
    "SELECT * FROM task_completed WHERE tenant = 'alice'",
    "SELECT * FROM task_completed WHERE tenant IS NULL OR true",
    "SELECT * FROM task_completed UNION ALL SELECT * FROM main.task_completed",
    "SELECT t FROM task_completed AS t",
    "SELECT list(model) FROM task_completed GROUP BY ALL",
    "SELECT * FROM duckdb_tables()",
    "SELECT * FROM duckdb_views()",
    "SELECT * FROM duckdb_columns()",
    "SELECT * FROM pragma_table_info('task_completed')",
    "SELECT * FROM information_schema.tables",
    "SELECT * FROM pg_catalog.pg_tables",
    "SELECT stats(model) FROM task_completed",
    "SELECT * FROM unread_events",
    "SELECT * FROM stream_position",
)
"""Statements that are answered, with what there is for the one who asks."""
REFUSED = (
    "SELECT * FROM events.main.task_completed",
    "SELECT * FROM query('SELECT * FROM task_completed')",
    "FROM query('FROM main.task_completed')",
    "SELECT * FROM query_table('task_completed')",
    "SELECT * FROM duckdb_databases()",
    "SELECT * FROM duckdb_settings()",
    "SELECT * FROM duckdb_temporary_files()",
    "SELECT * FROM pragma_storage_info('task_completed')",
    "EXPLAIN ANALYZE SELECT * FROM task_completed",
    "PREPARE p AS SELECT * FROM task_completed",
    "EXECUTE p",
    "CREATE MACRO m() AS TABLE SELECT * FROM task_completed",
    "CREATE TEMP VIEW v AS SELECT * FROM task_completed",
    "ATTACH 'events.duckdb' AS e",
    "USE events",
    "SET search_path = 'main'",
    "SELECT * FROM read_parquet('*/*.parquet')",
    "SELECT * FROM 'events.duckdb'",
    "SELECT * FROM arriving",
)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def mesh(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Choir]:
    """A client that may ask in anybody's name, of a service with rows of three tenants."""
    folder: Path = tmp_path_factory.mktemp("rows")
    async with Broker(folder / "broker", prepare=lambda url: provision_at(url, ())) as broker:
        nc: Client = await connect(broker.url)
        await seed_tenants(nc, [Tenant(name=name, role="observe") for name in ("alice", "bob")])
        await seed_tenants(nc, [Tenant(name="carol", role="operate"), Tenant(name="dave", role="ask")])
        service = Metrics(MetricsSection(folder=folder / "metrics"))
        await service.start(open_mesh(nc, "metrics"))
        number = 0
        for tenant, rows in ROWS.items():
            for _ in range(rows):
                number += 1
                model = SECRET if tenant == "alice" else tenant
                request_id = owned_id(tenant, f"r{number}")
                event = task_completed(number, request_id=request_id, tenant=tenant, model=model)
                await fill(nc, [event])
        async with Choir(broker.url) as choir:

            async def all_stored() -> bool:
                counted = await choir.sql("SELECT count(*) FROM task_completed")
                return bool(counted.rows[0][0] == sum(ROWS.values()))

            await eventually(all_stored)
            yield choir
        await service.stop()
        await nc.close()


@pytest.mark.parametrize("statement", ANSWERED)
async def test_what_bob_is_shown_has_no_row_of_alice(mesh: Choir, statement: str) -> None:
    rows = await mesh.as_tenant("bob").sql(statement)
    assert SECRET not in str(rows.rows) and "alice=" not in str(rows.rows)


@pytest.mark.parametrize("statement", REFUSED)
async def test_whatever_else_bob_types_is_refused(mesh: Choir, statement: str) -> None:
    with pytest.raises((QueryRefused, QueryFailed)) as refused:
        await mesh.as_tenant("bob").sql(statement)
    assert SECRET not in refused.value.message
    assert refused.value.field == "statement"


@pytest.mark.parametrize("tenant", ["alice", "bob", "dave", "nobody-knows-him"])
async def test_a_tenant_that_operates_nothing_sees_its_own_rows(mesh: Choir, tenant: str) -> None:
    own = mesh.as_tenant(tenant)
    counted = await own.sql("SELECT count(*), count(DISTINCT tenant) FROM task_completed")
    assert counted.rows == ((ROWS.get(tenant, 0), int(tenant in ROWS)),)
    sizes = await own.sql("SELECT estimated_size FROM duckdb_tables() WHERE table_name = 'task_completed'")
    assert sizes.rows == ((0,),)  # the statement reads no row, so there is none


async def test_ids_are_those_that_the_tenant_knows_and_views_are_of_its_rows(mesh: Choir) -> None:
    bob = mesh.as_tenant("bob")
    found = await bob.sql("SELECT request_id, task_id, model FROM tasks ORDER BY request_id")
    assert found.rows == tuple((f"r{n}", f"r{n}.1.alpha", "bob") for n in (6, 7, 8))
    one = await bob.sql("SELECT model FROM task_completed WHERE request_id = $id", {"id": "r6"})
    assert one.rows == (("bob",),)
    as_arrow = await bob.sql("SELECT model FROM task_completed", arrow=True)
    assert as_arrow.row_count == ROWS["bob"]


@pytest.mark.parametrize("tenant", ["local", "carol"])
async def test_whoever_operates_the_mesh_sees_all(mesh: Choir, tenant: str) -> None:
    rows = await mesh.as_tenant(tenant).sql("SELECT tenant, count(*) FROM task_completed GROUP BY ALL")
    assert dict(rows.rows) == ROWS


@pytest.mark.parametrize("tenant", ["local", "carol"])
async def test_a_key_that_observes_nothing_shows_a_gateway_the_rows_of_its_tenant(
    mesh: Choir, tenant: str
) -> None:
    bucket = Bucket(mesh._replies._client, subjects.KEYS_BUCKET, messages(ApiKey))
    seen = {}
    scopes: tuple[KeyScope, ...] = ("generate", "observe")
    for scope in scopes:
        key_id = f"{tenant}-{scope}"
        secret = new_secret(key_id)
        key = ApiKey(
            id=key_id, tenant=tenant, scopes=(scope,), digest=digest_of(secret), ending=secret[-4:],
            created_at_s=0.0,
        )  # fmt: skip
        await bucket.put(subjects.api_key(key_id), key)
        statement = "SELECT tenant, count(*) FROM task_completed GROUP BY ALL"
        seen[scope] = dict((await mesh.as_tenant(tenant, secret=secret).sql(statement)).rows)
    own = {tenant: ROWS[tenant]} if tenant in ROWS else {}
    assert seen == {"generate": own, "observe": ROWS}


async def test_a_statement_that_nothing_can_cut_off_ends_with_its_own_process(mesh: Choir) -> None:
    """Within one row DuckDB does not look whether it is to stop, for hours."""
    bob = mesh.as_tenant("bob")
    await bob.sql("SELECT 1", timeout_s=60)  # the process that the others are forked from is there
    for statement in (STUCK, ENDLESS[2]):
        with pytest.raises(DeadlineExceeded):
            pytest.fail(f"{statement}: {await bob.sql(statement, timeout_s=1)}")
        assert await has(bob, "task_completed", ROWS["bob"])
    # each was killed, so nothing computes any more; and the service did not end, for this test is its process
    await eventually(lambda: not multiprocessing.active_children())


async def test_a_statement_of_a_tenant_computes_after_whoever_stores_events(mesh: Choir) -> None:
    asking = asyncio.create_task(mesh.as_tenant("bob").sql(STUCK, timeout_s=120))
    behind = low_niceness()

    def priorities() -> list[int]:
        pids = [child.pid for child in multiprocessing.active_children() if child.pid is not None]
        return [os.getpriority(os.PRIO_PROCESS, pid) for pid in pids]

    await eventually(lambda: priorities() == [behind], 180)
    for child in multiprocessing.active_children():
        child.kill()
    with pytest.raises(QueryFailed):
        await asking


async def test_a_tenants_statement_that_wants_too_much_memory_fails_alone(mesh: Choir) -> None:
    bob = mesh.as_tenant("bob")
    for statement in (*GREEDY[:2], "SELECT length(repeat('x', 2000000000))"):
        with pytest.raises((QueryFailed, DeadlineExceeded)):
            pytest.fail(f"{statement}: {await bob.sql(statement, timeout_s=5)}")
        assert await has(bob, "task_completed", ROWS["bob"])
