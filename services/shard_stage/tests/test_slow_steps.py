"""A step that takes long is waited for, and one that never ends costs the process in which it is stuck."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path
from typing import Any

import pytest
from nats.aio.client import Client

from infra.demo_models.bench_model import write_bench_model
from infra.testing.plugin import SpawnService
from schemas import subjects
from schemas.requests.sampling import Sampling
from services.chassis.process.runner import EXIT_FAILED
from services.shard_stage.pipeline.rest import RESTING_BEATS
from services.shard_stage.tests.helpers.pipeline_mesh import READY_DEADLINE_S, PipelineMesh
from services.shard_stage.tests.pipeline.test_line import engine_says

pytestmark = pytest.mark.long

PROMPT = "Tell me a story."
LONG = Sampling(max_tokens=60)
SLOW_S, FOR_EVER_S = 8.0, 3600.0
BRIEF_S = 1.0
ENDED_S = 180.0

STAGE_WITH_ONE_LONG_STEP = """
import os, runpy, sys, time
from services.engine.decode.stage_context import StageContext
mark, seconds, evaluate = sys.argv[1], float(sys.argv[2]), StageContext.evaluate

def evaluate_some_time(self, *arguments):
    if os.path.exists(mark):
        os.unlink(mark)
        time.sleep(seconds)
    return evaluate(self, *arguments)

StageContext.evaluate = evaluate_some_time
runpy.run_module("services.shard_stage", run_name="__main__")
"""


@pytest.fixture
def mesh_models() -> tuple[str, ...]:
    return ("alpha",)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_bench_model(tmp_path_factory.mktemp("model") / "four.gguf", layers=4, width=64)


@pytest.fixture
def mark(tmp_path: Path) -> Path:
    """Where this file is the next step of stage-b takes long."""
    return tmp_path / "mark"


async def start_all(mesh: PipelineMesh, *others: str, mark: Path, seconds: float, **options: Any) -> None:
    """Starts these, and stage-b with its one long step; returns when all have made their offers."""
    command = [sys.executable, "-c", STAGE_WITH_ONE_LONG_STEP, str(mark), str(seconds)]
    process = mesh.start("stage-b", command=command, **options)
    await mesh.start_all(*others)
    await process.wait_ready(mesh.connection, READY_DEADLINE_S)


@pytest.mark.soak
async def test_no_epoch_begins_while_a_stage_is_at_a_long_step(
    connection: Client, mesh_url: str, spawn_service: SpawnService, model: Path, mark: Path, tmp_path: Path
) -> None:
    """As on a host that has other things to do."""
    (expected,) = engine_says(model, [PROMPT], LONG)
    mesh = PipelineMesh(spawn_service, connection, mesh_url, model, tmp_path / "slices")
    await start_all(mesh, "stage-a", mark=mark, seconds=SLOW_S)
    await mesh.place("stage-a", "stage-b")
    mark.touch()

    result = await mesh.ask(PROMPT, LONG, "slow")

    assert not mark.exists()
    assert result.text == expected.text
    assert (await mesh.now()).epoch == 1


@pytest.mark.soak
async def test_no_epoch_begins_when_a_pipeline_is_asked_that_has_rested_for_long(
    connection: Client,
    mesh_url: str,
    spawn_service: SpawnService,
    model: Path,
    mark: Path,
    tmp_path: Path,
) -> None:
    mesh = PipelineMesh(spawn_service, connection, mesh_url, model, tmp_path / "slices")
    await start_all(mesh, "stage-a", mark=mark, seconds=BRIEF_S)
    await mesh.place("stage-a", "stage-b")
    beats = await connection.subscribe(subjects.stage_signal(1))
    for number in range(4):
        # Given stages that have had nothing to do for longer than anything is on its way
        for _ in range(2 * RESTING_BEATS + 4):
            await beats.next_msg(READY_DEADLINE_S)
        # When the next step takes a moment
        mark.touch()
        result = await mesh.ask(PROMPT, LONG, f"ask-{number}")
        # Then it is waited for
        assert result.text and not mark.exists()
        assert (await mesh.now()).epoch == 1


async def test_a_process_with_a_stuck_step_says_so_and_ends_and_another_takes_its_place(
    connection: Client, mesh_url: str, spawn_service: SpawnService, model: Path, mark: Path, tmp_path: Path
) -> None:
    (expected,) = engine_says(model, [PROMPT], LONG)
    mesh = PipelineMesh(spawn_service, connection, mesh_url, model, tmp_path / "slices")
    await start_all(mesh, "stage-a", "standby", mark=mark, seconds=FOR_EVER_S, step_limit_s=2.0)
    await mesh.place("stage-a", "stage-b")
    mark.touch()

    stuck = mesh.instances["stage-b"]
    asked = asyncio.create_task(mesh.ask(PROMPT, LONG, "stuck"))
    lease = await stuck.wait_state(connection, "broken", ENDED_S)

    assert lease.problem is not None and "step_limit_s" in lease.problem.message
    assert await stuck.exited(ENDED_S) == EXIT_FAILED
    assert (await asked).text == expected.text
    assert [stage.instance for stage in (await mesh.now()).stages] == ["stage-a", "standby"]
