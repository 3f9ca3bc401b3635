"""What a stage service says of itself before anybody asks it for anything."""

from __future__ import annotations

import json
import logging
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import llama_cpp
import pytest
from gguf import GGMLQuantizationType
from nats.aio.client import Client

from infra.demo_models.family import FOLDER
from infra.testing.made_models.random_models import RECIPES, Shape, write_random_model
from infra.testing.made_models.variants import quantised
from infra.testing.plugin import SpawnService
from schemas.errors import ModelUnusable
from services.engine.model.cuts import layer_count
from services.engine.model.devices import GpuDevice
from services.engine.model.gguf.check import check_model_file
from services.engine.model.model import Weights
from services.engine.model.slicing import slice_file
from services.shard_stage.probe.capability import (
    LEAST_ROUNDS,
    MOST_ROUNDS,
    Speed,
    open_source,
    settled_ms,
    shardable_of,
)
from services.shard_stage.probe.slice_cache import SliceCache
from services.shard_stage.probe.step_costs import ROWS, costs_of
from services.shard_stage.service import ShardStage
from services.shard_stage.settings import StageModelSection, StageSettings


def stage_section(cache: Path, *models: str, **options: Any) -> str:
    """The environment of a stage service that offers demo models."""
    paths = [{"name": f"choir-{name}", "path": str(FOLDER / f"choir-{name}.gguf")} for name in models]
    return json.dumps({"name": "stage", "models": paths, "cache": str(cache), "threads": 1, **options})


async def test_an_idle_stage_offers_its_models_with_measured_speed(
    connection: Client, spawn_service: SpawnService, tmp_path: Path
) -> None:
    env = {"CHOIR_STAGE": stage_section(tmp_path, "llama", "gemma", memory_bytes=10**9)}

    lease = await spawn_service("shard_stage", "stage-1", env=env).wait_ready(connection)

    assert lease.stage is not None and lease.stage.held is None
    assert (lease.stage.memory_bytes, lease.stage.threads) == (10**9, 1)
    assert 0 < lease.stage.hop_ms < 1000
    llama, gemma = lease.stage.models
    header = check_model_file(FOLDER / "choir-llama.gguf")
    assert llama.layers == layer_count(header) and llama.cuts == tuple(range(1, llama.layers))
    assert gemma.cuts == (2,)
    for model in (llama, gemma):
        assert len(model.layer_bytes) == model.layers
        tensors = (FOLDER / f"{model.name}.gguf").stat().st_size
        assert 0.5 * tensors < sum(model.layer_bytes) + model.first_bytes + model.last_bytes < 2 * tensors
        assert model.layer_ms > 0 and model.cell_bytes > 0 and model.first_bytes > 0
        assert [cost.rows for cost in model.step_costs] == list(ROWS[: len(model.step_costs)])
        assert model.step_costs[0].alone == 1.0
        assert all(cost.beside >= cost.alone for cost in model.step_costs)


def test_a_stage_for_gpus_offers_their_memory(tmp_path: Path) -> None:
    def offer(gpus: tuple[GpuDevice, ...], **options: Any) -> tuple[int, int | None]:
        section = json.loads(stage_section(tmp_path, "llama", **options))
        stage = ShardStage(StageSettings.model_validate({"stage": section}), lambda: gpus).load().stage
        assert stage is not None
        return stage.memory_bytes, stage.gpu_bytes

    two = (GpuDevice("CUDA0", 5 * 10**9, 8 * 10**9), GpuDevice("CUDA1", 6 * 10**9, 8 * 10**9))
    assert offer(two, gpu_layers=-1) == (11 * 10**9, 16 * 10**9)
    assert offer(two, gpu_layers=-1, memory_bytes=10**9) == (10**9, 16 * 10**9)
    assert offer(two, memory_bytes=10**9) == (10**9, None)
    # Without any it offers no model, and says why
    model = StageModelSection(name="llama", path=FOLDER / "choir-llama.gguf")
    if not llama_cpp.llama_supports_gpu_offload():
        with pytest.raises(ModelUnusable, match="built here for the processor alone") as refused:
            open_source(model, SliceCache(tmp_path), threads=1, gpu_layers=-1)
        assert refused.value.field == "gpu_layers"


@pytest.mark.parametrize("architecture", ["llama", "qwen3", "gpt-oss"])
def test_slices_take_what_was_said_of_their_layers_and_ends(
    architecture: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Given weights that most processors keep in a form of their own; of qwen3 the embeddings are the output
    matrix as well, and gpt-oss insists on both."""
    shape = Shape(256, 4, 64, 4, 512, vocabulary=512)
    recipe = replace(RECIPES[architecture], shape=shape, layers=4)
    full = tmp_path / "full.gguf"
    write_random_model(full, architecture, recipe, matrices=GGMLQuantizationType.F32)
    model = quantised(full, "Q4_0")
    section = StageModelSection(name="model", path=model)
    said = shardable_of(section, "a" * 64, check_model_file(model), Speed(1.0, 1.0))
    for first, end_bytes in ((0, said.first_bytes), (2, said.last_bytes)):
        caplog.clear()
        slice_file(model, range(first, first + 2), tmp_path / "slice.gguf")
        with caplog.at_level(logging.DEBUG, logger="llama.cpp"):
            Weights(tmp_path / "slice.gguf").close()
        told = re.findall(r"model buffer size = *([\d.]+) MiB", caplog.text)
        assert sum(said.layer_bytes[first : first + 2]) + end_bytes == pytest.approx(
            2**20 * sum(map(float, told)), rel=0.05, abs=20_000
        ), first


async def test_a_stage_without_a_usable_model_says_what_is_wrong(
    connection: Client, spawn_service: SpawnService, tmp_path: Path
) -> None:
    (tmp_path / "choir-broken.gguf").write_bytes(b"GGUF and nothing else")
    models = [{"name": "broken", "path": str(tmp_path / "choir-broken.gguf")}]
    section = json.dumps({"name": "stage", "models": models, "cache": str(tmp_path)})

    stage = spawn_service("shard_stage", "stage-1", env={"CHOIR_STAGE": section})
    lease = await stage.wait_state(connection, "broken")

    assert lease.problem is not None and lease.problem.code == "model_unusable"
    assert "choir-broken.gguf" in lease.problem.message


def test_more_rows_and_company_never_cost_less_whatever_disturbed_a_step() -> None:
    costs = costs_of([14.0, 9.0, 20.0, 15.0], [12.0, 8.0, 18.0, 40.0], 10.0)
    assert [(cost.rows, cost.alone) for cost in costs] == [(1, 1.0), (2, 1.0), (4, 2.0), (8, 2.0)]
    assert [cost.beside for cost in costs] == [1.2, 1.2, 2.0, 4.0]


def test_the_speed_of_layers_is_that_of_rounds_that_agree_and_not_of_disturbed_ones() -> None:
    disturbed = [(14.0, 3.1), (22.0, 2.0), (13.0, 5.0), (9.9, 9.0), (10.1, 2.05), (30.0, 30.0)]
    assert settled_ms(lambda number: disturbed[number]) == [9.9, 2.0]

    rounds: list[int] = []

    def calm(number: int) -> tuple[float, float]:
        rounds.append(number)
        return 10.0, 2.0

    assert settled_ms(calm) == [10.0, 2.0] and len(rounds) == LEAST_ROUNDS

    # Where no two rounds agree, the shortest times hold
    assert settled_ms(lambda number: (50.0 - 3 * number, 2.0)) == [50.0 - 3 * (MOST_ROUNDS - 1), 2.0]
