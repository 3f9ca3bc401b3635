"""Every shipped query over what a mesh of demo models did: an ensemble, a chain, a pipeline, failures."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from typing import Any

import nats
import pytest
import pytest_asyncio

from analysis.queries.__main__ import chosen
from infra.host.supervisor import Supervisor
from infra.settings import load_host_settings
from schemas import subjects
from schemas.errors import DeadlineExceeded
from services.chassis.settings import MeshSection
from services.client.client import Choir
from services.client.queries.query_file import SHIPPED, read

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.long]

DEADLINE_S = 180.0
QUESTION = "What is the capital of Kenya?"
QUARTET = ("choir-llama", "choir-qwen", "choir-phi", "choir-gemma")
CONFIG = """
[broker]
port = 0
[[agents]]
name = "all"
threads = 1
models = [
  { name = "choir-llama", path = "demo:choir-llama", slots = 2 },
  { name = "choir-qwen", path = "demo:choir-qwen", slots = 2 },
  { name = "choir-phi", path = "demo:choir-phi", slots = 2 },
  { name = "choir-gemma", path = "demo:choir-gemma", slots = 2 },
]
[[agents]]
name = "slow"
backend = "instant"
models = [{ name = "slow", reply = "at last", delay_ms = 3000 }]
[[stages]]
name = "part"
replicas = 2
threads = 1
models = [{ name = "in-parts", path = "demo:choir-llama", context_tokens = 256 }]
[[pipelines]]
model = "in-parts"
stages = 2
force = true
"""
Row = dict[str, Any]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def rows(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[dict[str, list[Row]]]:
    """The rows of every shipped query, after all of it."""
    folder = tmp_path_factory.mktemp("mesh")
    (folder / "choir.toml").write_text(CONFIG)
    settings = load_host_settings(folder / "choir.toml")
    supervisor = Supervisor(settings, state=folder / "state", forward=lambda *_: None)
    await supervisor.start()
    try:
        async with Choir(supervisor.url) as mesh:
            chain_id = await do_everything(mesh, supervisor.operator)
            await until_told(mesh)
            yield await ask_all(mesh, chain_id)
    finally:
        await supervisor.stop()


async def do_everything(mesh: Choir, inside: MeshSection) -> str:
    """One request of every kind, and what goes wrong; the id of the chain."""
    async with asyncio.timeout(DEADLINE_S):
        while [pipeline.state for pipeline in await mesh.pipelines()] != ["ready"]:  # noqa: ASYNC110  (asked)
            await asyncio.sleep(0.1)
    for _ in range(3):
        await mesh.ask(QUESTION, model="choir-llama")
    await mesh.ask(QUESTION, models=list(QUARTET), strategies=["majority", "weighted"])
    await mesh.ask("Tell me about Kenya.", model="in-parts")
    chain = await mesh.ask("Tell me about Kenya.", model="choir-llama", summarize_with=["choir-gemma"])
    with pytest.raises(DeadlineExceeded):
        await mesh.ask("Is it late?", model="slow", timeout_s=0.5)
    connection = await nats.connect(inside.url, **inside.credentials)
    poisoned = subjects.generate("interactive", "choir-qwen", "poison-1")
    await connection.jetstream().publish(poisoned, b"\x00 not a command")
    await connection.close()
    return chain.request_id


async def until_told(mesh: Choir) -> None:
    """Returns when what each service tells of it is rows: none waits for another."""
    wanted = "SELECT (SELECT count(*) FROM message_died), (SELECT count(*) FROM stage_stepped),"
    wanted += (
        " (SELECT count(*) FROM node_sampled), (SELECT count(*) FROM errors WHERE request_id <> 'poison-1')"
    )
    wanted += (
        ", (SELECT count(*) >= 8 FROM request_completed), (SELECT count(*) >= 6 FROM request_replied),"
        " (SELECT count(*) >= 2 FROM decision_made)"
    )
    ends_s = time.monotonic() + DEADLINE_S
    while not all((await mesh.sql(wanted)).rows[0]):
        assert time.monotonic() < ends_s, await mesh.sql(wanted)
        await asyncio.sleep(0.2)


async def ask_all(mesh: Choir, request_id: str) -> dict[str, list[Row]]:
    """The rows of each query, as dictionaries."""
    queries = {name: read(path) for name, path in SHIPPED.items()}
    assert set(chosen([])) < set(queries)
    found = {}
    for name, query in queries.items():
        needed = {p.name: request_id for p in query.parameters if p.name == "request_id"}
        answer = await mesh.sql(query.statement, query.values(needed))
        found[name] = answer.by_name()
    return found


async def test_every_query_has_a_row(rows: dict[str, list[Row]]) -> None:
    assert [name for name, found in rows.items() if not found] == ["left_out"], (
        "nothing was lost or left open"
    )


async def test_requests_are_counted_by_how_they_travelled(rows: dict[str, list[Row]]) -> None:
    assert {row["topology"]: (row["requests"], row["failed"]) for row in rows["request_latency"]} == {
        "single": (4, 2), "ensemble": (1, 0), "chain": (1, 0)}  # fmt: skip


async def test_models_took_time_and_generated_tokens(rows: dict[str, list[Row]]) -> None:
    by_model = {row["model"]: row for row in rows["latency_by_model"]}
    assert {*QUARTET, "in-parts"} <= set(by_model)
    assert all(by_model[model]["p50_ms"] > 0 for model in QUARTET)
    assert all(row["p50_ms"] > 0 for row in rows["time_to_first_token"] if row["model"] in QUARTET)
    assert all(
        row["tokens_per_s"] > 1 for row in rows["tokens_per_second_by_node"] if row["model"] in QUARTET
    )


async def test_the_chain_has_two_peers_and_the_pipeline_two_stages(rows: dict[str, list[Row]]) -> None:
    assert [row["model"] for row in rows["chain_peers"]] == ["choir-llama", "choir-gemma"]
    assert [(row["stage"], row["steps"] > 10) for row in rows["stage_bubble"]] == [(0, True), (1, True)]
    assert all(0 <= row["bubble_share"] < 1 and row["compute_ms"] > 0 for row in rows["stage_bubble"])


async def test_what_was_decided_and_what_failed_is_there(rows: dict[str, list[Row]]) -> None:
    assert {row["strategy"]: row["decisions"] for row in rows["strategies"]} == {"majority": 1, "weighted": 1}
    assert {row["what"] for row in rows["retries"]} == {"died"}
    assert rows["slowest_requests"][0]["total_ms"] >= 500
    assert sum(row["failed"] for row in rows["error_budget"]) == 2


async def test_the_way_of_the_chain_is_told_piece_by_piece(rows: dict[str, list[Row]]) -> None:
    pieces = {row["what"] for row in rows["waterfall"]}
    assert {"admit", "enqueue", "queue", "generate", "store", "replied"} <= pieces
    assert len({row["task_id"] for row in rows["waterfall"] if row["task_id"]}) >= 2
