"""The models in memory as a table for people."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator

from rich.table import Table

from schemas.nodes.lease import NodeLease, OnDemand, ServedModel
from services.cli.views.tables.overview_tables import NOTHING, size, table
from services.cli.workers.tables import ago

STAYS = "stays"


def loaded_table(nodes: Iterable[NodeLease]) -> Table:
    """A line for each model of each agent, those of external workers left out; those in memory first."""
    rows = table(
        "model",
        "agent",
        "state",
        "memory",
        "busy",
        "until",
        "loads",
        right=("memory", "busy", "loads"),
        named=True,
    )
    served = [
        (node, model)
        for node in nodes
        for model in node.models
        if model.worker is None and model.problem is None
    ]
    for node, model in sorted(served, key=lambda one: (_state(one[1]) != "loaded", one[1].name)):
        rows.add_row(
            model.name,
            node.instance,
            _state(model),
            size(_memory(model)),
            f"{model.busy}/{model.slots}",
            _until(model.on_demand),
            NOTHING if model.on_demand is None else str(model.on_demand.loads),
        )
    return rows


def budget_lines(nodes: Iterable[NodeLease]) -> Iterator[str]:
    """For each agent that loads on demand: what of its budget is in use."""
    for node in nodes:
        found = [model.on_demand for model in node.models if model.on_demand is not None]
        if found:
            used = sum(one.memory_bytes for one in found if one.state != "unloaded")
            yield f"{node.instance}: {size(used)} of {size(found[0].budget_bytes)} for models on demand"


def _state(model: ServedModel) -> str:
    return "loaded" if model.on_demand is None else model.on_demand.state


def _memory(model: ServedModel) -> int | None:
    return model.size_bytes if model.on_demand is None else model.on_demand.memory_bytes


def _until(on_demand: OnDemand | None) -> str:
    if on_demand is None:
        return STAYS
    if on_demand.state != "loaded":
        return NOTHING
    if on_demand.unload_at_s is None:
        return "there is need"
    return f"in {ago(max(0.0, on_demand.unload_at_s - time.time()))}"
