"""Pipelines of stage services say what the unsplit engine says."""

from __future__ import annotations

from pathlib import Path

import pytest
from nats.aio.client import Client

from infra.testing import SpawnService
from services.engine.tests.variants import demo_model
from services.shard_stage.tests.pipeline_mesh import PipelineMesh
from services.shard_stage.tests.test_line import GREEDY, QUESTIONS, engine_says


@pytest.fixture
def mesh_models() -> tuple[str, ...]:
    return ("alpha",)


@pytest.fixture(scope="session")
def slices(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("slices")


async def test_two_stages_answer_as_the_engine(
    connection: Client, mesh_url: str, spawn_service: SpawnService, slices: Path
) -> None:
    model = demo_model("llama")
    expected = [finished.text for finished in engine_says(model, QUESTIONS, GREEDY)]
    mesh = PipelineMesh(spawn_service, connection, mesh_url, model, slices)
    await mesh.start_all("stage-a", "stage-b")
    await mesh.place("stage-a", "stage-b")

    alone = await mesh.ask(QUESTIONS[0], GREEDY, "alone")
    together = await mesh.ask_all(QUESTIONS, GREEDY, "together")

    assert alone.text == expected[0]
    assert [result.text for result in together] == expected
