"""Pipelines of stage services say what the unsplit engine says."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest
from nats.aio.client import Client

from infra.testing.made_models.variants import DEMO_MODELS, demo_model, write_variant
from infra.testing.plugin import SpawnService
from schemas.pipelines.plan import Shard
from services.shard_stage.tests.helpers.pipeline_mesh import PipelineMesh
from services.shard_stage.tests.pipeline.test_line import GREEDY, QUESTIONS, engine_says

pytestmark = pytest.mark.long

SIX_LAYERS = "gemma-of-six"


@pytest.fixture
def mesh_models() -> tuple[str, ...]:
    return (*DEMO_MODELS, SIX_LAYERS)


@pytest.fixture(scope="session")
def slices(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("slices")


FEW = {"llama": (2,), SIX_LAYERS: (3,)}
ALL = {**dict.fromkeys(DEMO_MODELS, (2, 3)), "gemma": (2,), SIX_LAYERS: (3,)}
"""In how many stages each model is run. The Gemma of four layers can only be cut in two; for three stages it
is one with six."""


@pytest.mark.parametrize("stages_of", [FEW, pytest.param(ALL, marks=pytest.mark.soak)], ids=["few", "all"])
async def test_the_demo_models_in_two_and_three_stages_answer_as_the_engine(
    stages_of: Mapping[str, tuple[int, ...]],
    connection: Client,
    mesh_url: str,
    spawn_service: SpawnService,
    slices: Path,
    tmp_path: Path,
) -> None:
    """Alone, eight at a time, and with tokens that are looked up ahead."""
    six = write_variant(demo_model("gemma"), tmp_path / "six.gguf", layers=[0, 1, 0, 1, 2, 3])
    models = {name: six if name == SIX_LAYERS else demo_model(name) for name in stages_of}
    mesh = PipelineMesh(spawn_service, connection, mesh_url, models, slices)
    stages = ("stage-a", "stage-b", "stage-c")
    await mesh.start_all(*stages)
    for number, (name, counts) in enumerate(stages_of.items()):
        expected = [finished.text for finished in engine_says(models[name], QUESTIONS, GREEDY)]
        for count in counts:
            await mesh.place(*stages[:count], model=name, number=10 * number + count)
            alone = await mesh.ask(QUESTIONS[0], GREEDY, f"{name}-{count}-alone", name)
            together = await mesh.ask_all(QUESTIONS, GREEDY, f"{name}-{count}", name)
            assert alone.text == expected[0]
            assert [result.text for result in together] == expected
            await mesh.remove(*stages[:count], model=name)
    wanted = Shard(model="llama", assign=stages[:2], draft="lookup")
    await mesh.place(*stages[:2], model="llama", number=99, wanted=wanted)
    said = [finished.text for finished in engine_says(models["llama"], QUESTIONS, GREEDY)]
    for number, text in enumerate(said[:3]):
        guessed = await mesh.ask(QUESTIONS[number], GREEDY, f"guessed-{number}", "llama")
        assert guessed.text == text


async def test_a_plan_for_another_file_is_refused_and_said_in_the_lease(
    connection: Client, mesh_url: str, spawn_service: SpawnService, slices: Path
) -> None:
    mesh = PipelineMesh(spawn_service, connection, mesh_url, {"llama": demo_model("llama")}, slices)
    process = mesh.start("stage-a")
    await process.wait_ready(connection)
    await mesh.write("llama", mesh.plan(["stage-a"], "llama", sha256="f" * 64).to_bytes())

    lease = await process.wait_state(connection, "broken")

    assert lease.problem is not None and lease.problem.code == "model_unusable"
    assert "f" * 64 in lease.problem.message


async def test_a_plan_of_another_schema_version_moves_nobody(
    connection: Client, mesh_url: str, spawn_service: SpawnService, slices: Path
) -> None:
    mesh = PipelineMesh(spawn_service, connection, mesh_url, {"llama": demo_model("llama")}, slices)
    process = mesh.start("stage-a")
    await process.wait_ready(connection)
    plan = mesh.plan(["stage-a"], "llama").to_bytes()
    await mesh.write("llama", plan.replace(b'"schema_version":1', b'"schema_version":2'))
    await process.logged("unreadable")

    await mesh.write("llama", plan)
    await mesh.serving("stage-a", "llama")


async def test_the_lease_says_of_which_file_a_pipeline_s_model_is(
    connection: Client, mesh_url: str, spawn_service: SpawnService, slices: Path
) -> None:
    mesh = PipelineMesh(spawn_service, connection, mesh_url, {"llama": demo_model("llama")}, slices)
    await mesh.start_all("stage-a")
    await mesh.write("llama", mesh.plan(["stage-a"], "llama").to_bytes())
    await mesh.serving("stage-a", "llama")

    lease = await mesh.lease("stage-a")

    assert lease is not None
    (model,) = lease.models
    size_bytes = demo_model("llama").stat().st_size
    assert (model.file, model.size_bytes, model.quantisation) == ("choir-llama.gguf", size_bytes, "Q8_0")
