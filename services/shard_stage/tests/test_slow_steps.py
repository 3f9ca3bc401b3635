"""A step that takes long is waited for, unless nobody wants what it reads; one that never ends costs the
process in which it is stuck."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path
from typing import Any

import pytest
from nats.aio.client import Client

from infra.demo_models.bench_model import write_bench_model
from infra.testing.mesh import eventually
from infra.testing.plugin import SpawnService
from schemas import subjects
from schemas.errors import Cancelled
from schemas.requests.sampling import Sampling
from services.chassis.process.runner import EXIT_FAILED
from services.client.client import Choir
from services.engine.decode.context import INTERRUPTED
from services.shard_stage.pipeline.rest import RESTING_BEATS
from services.shard_stage.tests.helpers.pipeline_mesh import READY_DEADLINE_S, PipelineMesh
from services.shard_stage.tests.pipeline.test_line import engine_says

pytestmark = pytest.mark.long

PROMPT = "Tell me a story."
LONG, SHORT = Sampling(max_tokens=60), Sampling(max_tokens=8)
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

STAGE_WITH_A_STEP_THAT_ENDS_WHEN_IT_IS_INTERRUPTED = """
import os, runpy, sys, time
from services.engine.decode.context import Context
mark, seconds, decode = sys.argv[1], float(sys.argv[2]), Context.decode

def decode_until_interrupted(self, batch):
    if batch.size < 8 or not os.path.exists(mark):
        return decode(self, batch)
    os.replace(mark, mark + ".begun")
    until_s = time.monotonic() + seconds
    while self._interruption[0] == b"\\0" and time.monotonic() < until_s:
        time.sleep(0.01)
    status = decode(self, batch)
    with open(mark + ".status.new", "w") as file:
        file.write(str(status))
    os.replace(mark + ".status.new", mark + ".status")
    return status

Context.decode = decode_until_interrupted
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


@pytest.mark.soak
async def test_the_step_at_hand_of_each_stage_ends_when_a_client_hangs_up_while_its_prompt_is_read(
    connection: Client, mesh_url: str, spawn_service: SpawnService, model: Path, tmp_path: Path
) -> None:
    names = ("stage-a", "stage-b", "stage-c")
    prompts = [f"{name} " + "word " * 36 for name in names]
    short, *long = engine_says(model, [PROMPT, *prompts], SHORT)
    mesh = PipelineMesh(spawn_service, connection, mesh_url, model, tmp_path / "slices")
    for name in names:
        script = STAGE_WITH_A_STEP_THAT_ENDS_WHEN_IT_IS_INTERRUPTED
        command = [sys.executable, "-c", script, str(tmp_path / name), str(ENDED_S)]
        mesh.start(name, command=command)
    for name in names:
        await mesh.instances[name].wait_ready(connection, READY_DEADLINE_S)
    await mesh.place(*names)
    for name, prompt, wanted in zip(names, prompts, long, strict=True):
        # Given a stage that is at a step of a long prompt, for as long as it is not interrupted
        mark, begun, status = (tmp_path / f"{name}{end}" for end in ("", ".begun", ".status"))
        mark.touch()
        asked = asyncio.create_task(mesh.ask(prompt, SHORT, f"left-{name}"))
        await eventually(begun.exists, ENDED_S)
        # When its client hangs up
        async with Choir(mesh_url) as client:
            await client.cancel(f"left-{name}")
        with pytest.raises(Cancelled):
            await asked
        # Then the step ends, the stages agree on where they are, and others get their texts
        await eventually(status.exists, 2 * ENDED_S)
        assert int(status.read_text()) == INTERRUPTED
        assert (await mesh.ask(PROMPT, SHORT, f"short-{name}")).text == short.text
        assert (await mesh.ask(prompt, SHORT, f"long-{name}")).text == wanted.text
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
