"""The rows of `choir top`, from the leases of the services."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Literal

from schemas.message import Struct
from schemas.nodes.lease import NodeLease, NodeState, ServedModel
from schemas.nodes.workers import WorkerState
from schemas.replies import ModelQueue

Condition = Literal["works", "cordoned", "on trial", "out"]


class NodeRow(Struct):
    """One service instance, without the external workers that it uses; what the metrics service would say of
    it is None where there is none."""

    instance: str
    service: str
    host: str
    state: NodeState
    slots: int
    busy: int
    cpu_percent: float
    memory_used_bytes: int
    gpu_percent: float | None = None
    tasks_per_s: float | None = None
    tokens_per_s: float | None = None
    broker_rtt_ms: float | None = None


class ModelRow(Struct):
    """One model, over all that serve it. `tokens_per_s` is what one sequence was generated with lately,
    `waiting` how many commands wait in its queue; None where nobody tells."""

    model: str
    by: tuple[str, ...]
    slots: int
    busy: int
    waiting: int | None = None
    tokens_per_s: float | None = None
    context_tokens: int | None = None
    size_bytes: int | None = None
    quantisation: str | None = None
    file: str | None = None


class WorkerRow(Struct):
    """One external server that an agent uses."""

    worker: str
    type: str
    url: str
    model: str
    agent: str
    state: Condition
    slots: int
    busy: int
    tokens_per_s: float | None = None


class StageRow(Struct):
    """One stage of a pipeline. `tokens_per_s` is what it has evaluated in the last seconds."""

    model: str
    stage: int
    layers: str
    instance: str
    host: str
    ready: bool
    slots: int
    busy: int
    step_ms: float | None = None
    tokens_per_s: float | None = None


def own_slots(node: NodeLease) -> tuple[int, int]:
    """Busy and all slots of an instance, without those of external workers: these stand on their own."""
    external = [model for model in node.models if model.worker is not None]
    return (
        max(0, node.busy - sum(model.busy for model in external)),
        max(0, node.slots - sum(model.slots for model in external)),
    )


def model_rows(nodes: Iterable[NodeLease], queues: Mapping[str, ModelQueue]) -> tuple[ModelRow, ...]:
    """All models that are served, by name, with what waits for them."""
    served: dict[str, list[tuple[str, ServedModel]]] = {}
    for node in nodes:
        for model in node.models:
            by = node.instance if model.worker is None else model.worker.id
            served.setdefault(model.name, []).append((by, model))
    return tuple(_model_row(name, served[name], queues.get(name)) for name in sorted(served))


def _model_row(name: str, served: Sequence[tuple[str, ServedModel]], queue: ModelQueue | None) -> ModelRow:
    models = [model for _, model in served]
    speeds = [model.tokens_per_s for model in models if model.tokens_per_s is not None]
    file = next((model for model in models if model.file is not None), models[0])
    return ModelRow(
        model=name,
        by=tuple(by for by, _ in served),
        slots=sum(model.slots for model in models),
        busy=sum(model.busy for model in models),
        waiting=None if queue is None else queue.waiting,
        tokens_per_s=sum(speeds) / len(speeds) if speeds else None,
        context_tokens=models[0].context_tokens,
        size_bytes=file.size_bytes,
        quantisation=file.quantisation,
        file=file.file,
    )


def worker_rows(nodes: Iterable[NodeLease]) -> tuple[WorkerRow, ...]:
    """All external workers in use, by their ids."""
    rows = [
        WorkerRow(
            worker=model.worker.id,
            type=model.worker.type,
            url=model.worker.url,
            model=model.name,
            agent=node.instance,
            state=_condition(model.worker),
            slots=model.slots,
            busy=model.busy,
            tokens_per_s=model.tokens_per_s,
        )
        for node in nodes
        for model in node.models
        if model.worker is not None
    ]
    return tuple(sorted(rows, key=lambda row: row.worker))


def _condition(state: WorkerState) -> Condition:
    if state.cordoned:
        return "cordoned"
    return {"closed": "works", "open": "out", "half_open": "on trial"}[state.circuit]  # type: ignore[return-value]


def stage_rows(nodes: Iterable[NodeLease]) -> tuple[StageRow, ...]:
    """All stages of all pipelines, in their order."""
    rows = [
        StageRow(
            model=held.model,
            stage=held.stage,
            layers=f"{held.first_layer}-{held.end_layer - 1}",
            instance=node.instance,
            host=node.host,
            ready=held.ready,
            slots=node.slots,
            busy=node.busy,
            step_ms=held.step_ms,
            tokens_per_s=held.tokens_per_s,
        )
        for node in nodes
        if node.stage is not None and (held := node.stage.held) is not None
    ]
    return tuple(sorted(rows, key=lambda row: (row.model, row.stage)))
