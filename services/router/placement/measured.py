"""The speed of layers in a running pipeline, from the steps that its stages have told of: pure.

A step of two sequences may cost nearly three times one of a single sequence, and stages group what arrives in
their own ways. So stages are compared by steps of as many rows, if there are enough of those everywhere.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from schemas.nodes.lease import NodeLease
from schemas.pipelines.plan import PipelinePlan, Shardable, StageHeld, StepTimes

LEAST_STEPS = 6
"""A median of fewer says nothing."""
MOST_SPREAD = 0.6
"""Times whose middle half is further apart are those of a host that does now this, now that."""


@dataclass(frozen=True)
class StageSteps:
    """The steady steps of one stage: milliseconds by rows, the most frequent number of rows first.

    `layers` are those that it holds, and for a last stage as many more as norm and output matrix are worth.
    """

    layers: float
    steps_ms: Mapping[int, tuple[float, int]]

    @classmethod
    def of(cls, layers: float, times: Sequence[StepTimes]) -> StageSteps:
        """Those of a lease without the ones that are too few, or scatter."""
        steady = [t for t in times if t.steps >= LEAST_STEPS and t.spread <= MOST_SPREAD and t.median_ms > 0]
        steady.sort(key=lambda t: (-t.steps, t.rows))
        return cls(layers, {t.rows: (t.median_ms, t.steps) for t in steady})


@dataclass(frozen=True)
class Speeds:
    """What one layer takes in each stage's step of `rows` rows. Without `rows` the stages have no number of
    rows in common: these are milliseconds for a row, each stage's at the number that it has most often."""

    layer_ms: tuple[float, ...]
    rows: int | None


def speeds_of(stages: Sequence[StageSteps]) -> Speeds | None:
    """The speeds of all stages; None where one has no steady steps."""
    if not all(stage.steps_ms for stage in stages):
        return None
    shared = set.intersection(*(set(stage.steps_ms) for stage in stages))
    if not shared:
        own = [next(iter(stage.steps_ms.items())) for stage in stages]
        per_row = [ms / rows for rows, (ms, _) in own]
        return Speeds(tuple(ms / stage.layers for ms, stage in zip(per_row, stages, strict=True)), None)
    rows = max(shared, key=lambda rows: (min(stage.steps_ms[rows][1] for stage in stages), -rows))
    return Speeds(tuple(stage.steps_ms[rows][0] / stage.layers for stage in stages), rows)


def last_layers(model: Shardable) -> float:
    """How many layers norm and output matrix are worth, as measured when the instance started; 0 where
    nothing was."""
    return model.last_ms / model.layer_ms if model.layer_ms > 0 else 0.0


def measured_speeds(plan: PipelinePlan, leases: Sequence[NodeLease]) -> Speeds | None:
    """The speeds of a plan's stages now; None unless all are ready in this epoch and steadily at work."""
    stages = []
    for number in range(len(plan.stages)):
        held, model = held_stage(plan, number, leases), offered(plan, number, leases)
        if held is None or not held.ready or model is None:
            return None
        spec = plan.stages[number]
        layers = float(spec.end_layer - spec.first_layer)
        if number == len(plan.stages) - 1:
            layers += last_layers(model)
        stages.append(StageSteps.of(layers, held.times))
    return speeds_of(stages)


def held_stage(plan: PipelinePlan, number: int, leases: Sequence[NodeLease]) -> StageHeld | None:
    """What the instance of a stage says of its place, if it means this plan and this epoch."""
    lease = _lease(plan, number, leases)
    held = lease.stage.held if lease is not None and lease.stage is not None else None
    if held is None or (held.model, held.epoch, held.stage) != (plan.model, plan.epoch, number):
        return None
    return held


def offered(plan: PipelinePlan, number: int, leases: Sequence[NodeLease]) -> Shardable | None:
    """What the instance of a stage offers of the plan's model."""
    lease = _lease(plan, number, leases)
    models = lease.stage.models if lease is not None and lease.stage is not None else ()
    return next((model for model in models if model.name == plan.model), None)


def _lease(plan: PipelinePlan, number: int, leases: Sequence[NodeLease]) -> NodeLease | None:
    instance = plan.stages[number].instance
    return next((lease for lease in leases if lease.stage is not None and lease.instance == instance), None)
