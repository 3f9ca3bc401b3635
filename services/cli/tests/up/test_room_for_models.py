"""`choir validate` counts what models take, on the host and on its GPUs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from infra.demo_models.bench_model import write_bench_model
from infra.settings import HostSettings
from services.agent.settings import AgentSection
from services.cli.setup.validation.finding import Finding
from services.cli.setup.validation.space import check_memory
from services.cli.views.tables.overview_tables import size
from services.engine.model.devices import GpuDevice
from services.engine.model.gguf.check import check_model_file
from services.engine.model.memory.need import memory_need
from services.modelstore.settings import ModelStoreSection

SLOTS, MB = 2, 10**6
LAYERS = 4


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small model."""
    return write_bench_model(tmp_path_factory.mktemp("models") / "model.gguf", layers=LAYERS, width=256)


def need_bytes(model: Path, *, exact: bool) -> int:
    """What it takes in the test."""
    size_bytes = model.stat().st_size
    return memory_need(check_model_file(model), size_bytes, SLOTS, None, exact=exact).total_bytes


def found(model: Path, *gpus: GpuDevice, replicas: int = 1, **fields: Any) -> dict[str, Finding]:
    """The findings on a host with one agent, by what was looked at."""
    section = {"name": "small", "path": model, "slots": SLOTS, **fields}
    agent = AgentSection.model_validate({"name": "one", "models": [section], "replicas": replicas})
    settings = HostSettings(agents=(agent,))
    return {finding.what: finding for finding in check_memory(settings, lambda: gpus)}


def gpu(free_bytes: int, total_bytes: int = 10**9) -> GpuDevice:
    """One of them."""
    return GpuDevice("CUDA0", free_bytes, total_bytes)


def test_the_cache_of_the_slots_counts_beside_the_weights(model: Path) -> None:
    on_host = found(model, replicas=3)
    assert list(on_host) == ["memory"] and on_host["memory"].state == "ok"
    told = 3 * need_bytes(model, exact=True)
    assert told > 3 * model.stat().st_size + 100 * MB
    assert on_host["memory"].found.startswith(f"the models take {size(told)} of ")
    much = found(model, replicas=64, slots=256)["memory"]
    assert much.state == "wrong" and "fewer slots" in much.to_do


def test_what_goes_to_gpus_is_counted_against_their_memory(model: Path) -> None:
    need = need_bytes(model, exact=False)
    room = found(model, gpu(need), gpu(0), gpu_layers=-1)
    assert list(room) == ["memory of GPUs"] and room["memory of GPUs"].state == "ok"
    assert "CUDA0, CUDA0" in room["memory of GPUs"].found
    busy = found(model, gpu(need - MB), gpu_layers=-1)["memory of GPUs"]
    assert busy.state == "warning" and "stop what uses the GPU" in busy.to_do
    small = found(model, gpu(0, need - MB), gpu_layers=-1)["memory of GPUs"]
    assert small.state == "wrong" and "gpu_layers" in small.to_do
    none = found(model, gpu_layers=-1)["memory of GPUs"]
    assert none.state == "wrong" and "gpu_layers = 0" in none.to_do
    assert found(model, gpu(need), replicas=2, gpu_layers=-1)["memory of GPUs"].state == "warning"
    # With some layers there both are looked at
    both = found(model, gpu(need // 2 + MB), gpu_layers=LAYERS // 2)
    assert {what: finding.state for what, finding in both.items()} == {"memory of GPUs": "ok", "memory": "ok"}


def test_what_an_agent_may_take_for_models_on_demand_counts_too() -> None:
    described = {"name": "attic", "on_demand": {"memory_bytes": 5 * 10**9, "gpu_layers": -1}}
    agents = (AgentSection.model_validate(described),)
    settings = HostSettings(agents=agents, modelstore=ModelStoreSection(enabled=True))
    (found,) = check_memory(settings, lambda: (gpu(10**9),))
    assert (found.what, found.state) == ("memory of GPUs", "wrong")
