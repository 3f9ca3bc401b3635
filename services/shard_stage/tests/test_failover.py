"""Stages are killed and paused while they generate: every text goes on token for token."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
from nats.aio.client import Client

from infra.models.bench_model import write_bench_model
from infra.testing import SpawnService
from schemas import subjects
from schemas.replies import Result
from schemas.sampling import Sampling
from services.chassis.tests.mesh import eventually, queue_is_empty
from services.shard_stage.tests.pipeline_mesh import PipelineMesh
from services.shard_stage.tests.test_line import engine_says

PROMPTS = [f"Tell me about number {number}." for number in range(8)]
LONG = Sampling(max_tokens=120)


@pytest.fixture
def mesh_models() -> tuple[str, ...]:
    return ("alpha",)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six layers of random weights, that speak until they are told to stop."""
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
    """Eight requests at once, and `fault` when all of them have begun to speak."""
    asking = asyncio.create_task(mesh.ask_all(PROMPTS, LONG, "load"))
    await mesh.speaking(len(PROMPTS))
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


@pytest.mark.parametrize("victim", [0, 1, 2])
async def test_a_killed_stage_is_replaced_and_every_text_goes_on(
    mesh: PipelineMesh, undisturbed: list[str], victim: int
) -> None:
    async def kill() -> None:
        mesh.instances[["stage-a", "stage-b", "stage-c"][victim]].kill()

    results = await asked_while(mesh, kill)

    await assert_each_has_its_text_once(mesh, results, undisturbed)
    plan = await mesh.now()
    assert plan.stages[victim].instance == "standby" and plan.epoch > 1
