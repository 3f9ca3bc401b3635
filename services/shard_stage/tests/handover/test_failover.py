"""Stages are killed and paused while they generate: every text goes on token for token."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
from nats.aio.client import Client

from infra.broker.broker import Broker
from infra.demo_models.bench_model import write_bench_model
from infra.testing.mesh import eventually, queue_is_empty
from infra.testing.plugin import SpawnService, connect
from schemas import subjects
from schemas.replies import Result
from schemas.requests.sampling import Sampling
from services.shard_stage.tests.helpers.pipeline_mesh import READY_DEADLINE_S, PipelineMesh
from services.shard_stage.tests.pipeline.test_line import engine_says

pytestmark = pytest.mark.long

PROMPTS = [f"Tell me about number {number}." for number in range(8)]
LONG = Sampling(max_tokens=120)


@pytest.fixture
def mesh_models() -> tuple[str, ...]:
    return ("alpha",)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six layers of random weights, that generate until they are told to stop."""
    return write_bench_model(tmp_path_factory.mktemp("model") / "six.gguf", layers=6, width=256)


@pytest.fixture(scope="module")
def undisturbed(model: Path) -> list[str]:
    """What the unsplit engine says."""
    return [finished.text for finished in engine_says(model, PROMPTS, LONG)]


@pytest.fixture(scope="session")
def slices(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("slices")


@pytest.fixture
async def mesh(
    connection: Client, mesh_url: str, spawn_service: SpawnService, model: Path, slices: Path
) -> PipelineMesh:
    """Three stages and a standby."""
    mesh = PipelineMesh(spawn_service, connection, mesh_url, model, slices)
    await mesh.start_all("stage-a", "stage-b", "stage-c", "standby")
    await mesh.place("stage-a", "stage-b", "stage-c")
    return mesh


async def asked_while(mesh: PipelineMesh, fault: Callable[[], Awaitable[None]]) -> list[Result]:
    """Eight requests at once, and `fault` when all of them have begun to decode."""
    asking = asyncio.create_task(mesh.ask_all(PROMPTS, LONG, "load"))
    await mesh.decoding(len(PROMPTS))
    await fault()
    return await asking


async def assert_each_has_its_text_once(
    mesh: PipelineMesh, results: list[Result], undisturbed: list[str]
) -> None:
    assert [result.text for result in results] == undisturbed
    js = mesh.connection.jetstream()
    info = await js.stream_info(subjects.RESULTS_STREAM, subjects_filter=subjects.ALL_RESULTS)
    assert info.state.subjects == {subjects.result(f"load-{n}"): 1 for n in range(len(PROMPTS))}
    await eventually(lambda: queue_is_empty(mesh.connection))


@pytest.mark.parametrize("victim", [0, pytest.param(1, marks=pytest.mark.soak), 2])
async def test_a_killed_stage_is_replaced_and_every_text_goes_on(
    mesh: PipelineMesh, undisturbed: list[str], victim: int
) -> None:
    async def kill() -> None:
        mesh.instances[["stage-a", "stage-b", "stage-c"][victim]].kill()

    results = await asked_while(mesh, kill)

    await assert_each_has_its_text_once(mesh, results, undisturbed)

    async def replaced() -> bool:
        plan = await mesh.now()
        return plan.stages[victim].instance == "standby" and plan.epoch > 1

    await eventually(replaced, READY_DEADLINE_S)


async def test_a_stage_that_was_paused_beyond_its_lease_wakes_up_and_steps_down(
    mesh: PipelineMesh, undisturbed: list[str]
) -> None:
    """When it wakes it still holds frames of its epoch, and does no harm with them."""
    paused = mesh.instances["stage-b"]

    async def pause() -> None:
        paused.pause()

    results = await asked_while(mesh, pause)
    await mesh.lease_gone("stage-b")
    paused.resume()
    lease = await mesh.idle("stage-b")

    await assert_each_has_its_text_once(mesh, results, undisturbed)
    assert lease.stage is not None and lease.stage.held is None
    again = await mesh.ask(PROMPTS[0], LONG, "again")
    assert again.text == undisturbed[0]


@pytest.mark.soak
async def test_a_first_stage_that_was_paused_hands_its_tasks_on_and_wakes_up_to_nothing(
    mesh: PipelineMesh, undisturbed: list[str]
) -> None:
    paused = mesh.instances["stage-a"]

    async def pause() -> None:
        paused.pause()

    results = await asked_while(mesh, pause)
    paused.resume()
    lease = await mesh.idle("stage-a")

    await assert_each_has_its_text_once(mesh, results, undisturbed)
    assert not lease.models


@pytest.mark.soak
async def test_a_killed_stage_that_is_started_again_takes_its_own_place(
    connection: Client,
    mesh_url: str,
    spawn_service: SpawnService,
    model: Path,
    slices: Path,
    undisturbed: list[str],
) -> None:
    """No standby is there."""
    mesh = PipelineMesh(spawn_service, connection, mesh_url, model, slices)
    await mesh.start_all("stage-a", "stage-b")
    await mesh.place("stage-a", "stage-b")

    async def kill_and_start() -> None:
        mesh.instances["stage-b"].kill()
        mesh.start("stage-b")

    results = await asked_while(mesh, kill_and_start)

    await assert_each_has_its_text_once(mesh, results, undisturbed)


async def test_a_killed_broker_comes_back_and_every_request_has_one_result(
    own_broker: Broker, spawn_service: SpawnService, model: Path, slices: Path, undisturbed: list[str]
) -> None:
    """The log and the leases are gone with the broker's memory: sequences go on from what the stages hold."""
    connection = await connect(own_broker.url)
    mesh = PipelineMesh(spawn_service, connection, own_broker.url, model, slices)
    await mesh.start_all("stage-a", "stage-b")
    await mesh.place("stage-a", "stage-b")

    async def restart() -> None:
        own_broker.kill()
        await own_broker.restart()

    results = await asked_while(mesh, restart)

    await assert_each_has_its_text_once(mesh, results, undisturbed)
    await connection.close()
