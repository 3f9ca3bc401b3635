"""Each event becomes one row, whatever dies meanwhile."""

from __future__ import annotations

import asyncio
import os
from functools import partial
from pathlib import Path

import duckdb
import pytest
from nats.aio.client import Client

from infra.broker.broker import Broker
from infra.testing.mesh import eventually
from infra.testing.plugin import SpawnService, connect
from schemas import subjects
from schemas.errors import MeshUnreachable
from services.client.client import Choir
from services.metrics.store.database import FILE_NAME
from services.metrics.tests.mesh import asking, count_of, fill, has, spawn_metrics, task_completed, value

pytestmark = pytest.mark.long

# `just kill-metrics` kills it 20 times while it stores 100,000 events.
KILLS = int(os.environ.get("CHOIR_TEST_METRICS_KILLS", "2"))
EVENTS = int(os.environ.get("CHOIR_TEST_METRICS_EVENTS", "8000"))
SMALL_BATCH = 20
"""Batches this small make a kill between any two steps of one likely, and to store all of them takes long: a
test that gets a processor late has looked before that is over."""


def stored_in(folder: Path) -> int:
    """The rows in the file of a service that has been killed."""
    with duckdb.connect(str(folder / FILE_NAME), read_only=True) as database:
        row = database.execute("SELECT count(*) FROM task_completed").fetchone()
    return int(row[0]) if row else 0


async def some_more(choir: Choir, before: int) -> bool:
    try:
        return await count_of(choir, "task_completed") > before
    except MeshUnreachable:
        return False


async def test_a_service_that_is_killed_again_and_again_stores_every_event_once(
    mesh_url: str, connection: Client, spawn_service: SpawnService, tmp_path: Path
) -> None:
    await fill(connection, (task_completed(number) for number in range(EVENTS)))
    folder, before = tmp_path / "metrics", 0
    async with asking(mesh_url) as choir:
        for kill in range(KILLS):
            service = spawn_metrics(spawn_service, folder, mesh_url, batch_rows=SMALL_BATCH)
            await eventually(partial(some_more, choir, before), 180)
            await asyncio.sleep(0.002 * kill)
            service.kill()
            after = stored_in(folder)
            assert after > before, "it went on from where it was killed"
            before = after
        assert before < EVENTS, "every kill came while it stored"
        spawn_metrics(spawn_service, folder, mesh_url)
        await eventually(lambda: has(choir, "task_completed", EVENTS), 180)
        assert await value(choir, "SELECT count(DISTINCT event_id) FROM task_completed") == EVENTS
        gaps = "SELECT count(*) FROM task_completed WHERE event_id <> 'event-' || (sequence - first)"
        first = "(SELECT *, min(sequence) OVER () AS first FROM task_completed)"
        assert await value(choir, gaps.replace("FROM task_completed", f"FROM {first}")) == 0


async def test_a_broker_that_dies_and_comes_back_costs_no_event_that_it_kept(
    own_broker: Broker, spawn_service: SpawnService, tmp_path: Path
) -> None:
    spawn_metrics(spawn_service, tmp_path / "metrics", own_broker.url)
    client = await connect(own_broker.url)
    js = client.jetstream()
    for number in range(200):
        await js.publish(subjects.event("agent", "task_completed"), task_completed(number).to_bytes())
    async with asking(own_broker.url) as choir:
        await eventually(lambda: has(choir, "task_completed", 200), 180)
        own_broker.kill()
        await own_broker.start()
        for number in range(200, 400):
            await _patiently(client, number)
        await eventually(lambda: has(choir, "task_completed", 400), 180)
        assert await value(choir, "SELECT count(DISTINCT event_id) FROM task_completed") == 400
    await client.close()


async def _patiently(client: Client, number: int) -> None:
    """Publishes under an id until the broker, which has just come back, has it once."""
    body, headers = task_completed(number).to_bytes(), {subjects.MESSAGE_ID_HEADER: f"m{number}"}

    async def stored() -> bool:
        try:
            await client.jetstream().publish(
                subjects.event("agent", "task_completed"), body, headers=headers, timeout=1
            )
        except Exception:  # noqa: BLE001  (whatever a broker that starts says)
            return False
        return True

    await eventually(stored)
