"""The models in memory, as `choir ps` shows them."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from schemas.errors import ErrorBody
from schemas.nodes.lease import NodeLease, OnDemand, ServedModel
from services.cli.tests.views.shown import lines_of
from services.cli.views.tables.loaded_models import budget_lines, loaded_table
from services.modelstore.tests.stores import node

NOW_S, MIB = 1_000.0, 1024**2


def served(name: str, busy: int = 0, **fields: object) -> ServedModel:
    """A model of an agent, with two slots."""
    return ServedModel.model_validate(
        {"name": name, "backend": "llama_cpp", "slots": 2, "busy": busy, **fields}
    )


def on_demand(state: str, **fields: object) -> OnDemand:
    """One that takes 65 MiB of 219."""
    sizes = {"memory_bytes": 65 * MIB, "budget_bytes": 219 * MIB}
    return OnDemand.model_validate({"state": state, **sizes, **fields})


@pytest.fixture
def nodes(monkeypatch: pytest.MonkeyPatch) -> list[NodeLease]:
    """An agent with models on demand, and one whose models stay, at NOW_S."""
    clock = SimpleNamespace(time=lambda: NOW_S)
    monkeypatch.setattr("services.cli.views.tables.loaded_models.time", clock)
    problem = ErrorBody(code="no_room", message="no room")
    models = (
        served("qwen", on_demand=on_demand("unloaded")),
        served("phi", 1, on_demand=on_demand("loaded", loads=3, unload_at_s=NOW_S + 49)),
        served("gemma", on_demand=on_demand("loading", loads=1)),
        served("llama", on_demand=on_demand("loaded", loads=1)),
        served("too-large", on_demand=on_demand("unloaded"), problem=problem),
    )
    always = (served("always", 2, size_bytes=2 * 1024 * MIB),)
    return [node("on-demand", "attic", models=models), node("agent-1", "barn", models=always)]


def test_what_is_loaded_comes_first_with_its_memory_its_work_and_until_when_it_stays(
    nodes: list[NodeLease],
) -> None:
    assert lines_of(loaded_table(nodes)) == [
        "model   agent      state      memory  busy  until          loads",
        "always  agent-1    loaded    2.0 GiB   2/2  stays              -",
        "llama   on-demand  loaded     65 MiB   0/2  there is need      1",
        "phi     on-demand  loaded     65 MiB   1/2  in 49 s            3",
        "gemma   on-demand  loading    65 MiB   0/2  -                  1",
        "qwen    on-demand  unloaded   65 MiB   0/2  -                  0",
    ]


def test_of_each_agent_that_loads_on_demand_is_said_what_of_its_budget_is_in_use(
    nodes: list[NodeLease],
) -> None:
    assert list(budget_lines(nodes)) == ["on-demand: 195 MiB of 219 MiB for models on demand"]
