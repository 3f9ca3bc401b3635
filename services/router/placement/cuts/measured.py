"""The speed of layers in a running pipeline, from the steps that its stages have told of: pure.

A step of two sequences may cost nearly three times one of a single sequence, and stages group what arrives in
their own ways. So stages are compared by steps of as many rows, if there are enough of those everywhere.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from schemas.nodes.lease import NodeLease
from schemas.pipelines.plan import PipelinePlan, Shardable, StageHeld, StepTimes

LEAST_STEPS = 5
"""A median of fewer says nothing."""
MOST_ERROR = 0.3
"""A median that is known no better, as a share of itself, scatters: its host does now this, now that."""
MEDIAN_ERROR = 0.93
"""The standard error of a median is this much of the interquartile range over the root of the number of
values, where these are of a normal distribution: 1.2533 standard deviations, of which the range has 1.349."""


@dataclass(frozen=True)
class StageSteps:
    """The steps of one stage by their rows, those that scatter left out; the most frequent rows first.

    `layers` are those that it holds, and for a last stage as many more as norm and output matrix are worth.
    """

    layers: float
    times: Mapping[int, StepTimes]

    @classmethod
    def of(cls, layers: float, times: Sequence[StepTimes]) -> StageSteps:
        """Those of a lease without the ones that are too few, or scatter."""
        steady = [t for t in times if t.steps >= LEAST_STEPS and t.median_ms > 0]
        steady = [t for t in steady if error_of(t) <= MOST_ERROR]
        steady.sort(key=lambda t: (-t.steps, t.rows))
        return cls(layers, {t.rows: t for t in steady})

    def layer_ms(self, rows: int) -> float:
        """What a layer takes of a step of so many rows."""
        return self.times[rows].median_ms / self.layers


def error_of(times: StepTimes) -> float:
    """How well a median is known: its standard error as a share of itself."""
    return float(MEDIAN_ERROR * times.spread / math.sqrt(times.steps))


@dataclass(frozen=True)
class Speeds:
    """What one layer takes in each stage's step of `rows` rows. Without `rows` the stages have no number of
    rows in common: these are milliseconds for a row, each stage's at the number that it has most often.
    `error` is that of the median which is known worst."""

    layer_ms: tuple[float, ...]
    rows: int | None
    error: float


def speeds_of(stages: Sequence[StageSteps]) -> Speeds | None:
    """The speeds of all stages; None where one has no steady steps."""
    if not all(stage.times for stage in stages):
        return None
    shared = set.intersection(*(set(stage.times) for stage in stages))
    if not shared:
        own = [next(iter(stage.times)) for stage in stages]
        layer_ms = tuple(stage.layer_ms(rows) / rows for stage, rows in zip(stages, own, strict=True))
        return Speeds(layer_ms, None, _worst_error(stages, own))
    rows = max(shared, key=lambda rows: (min(stage.times[rows].steps for stage in stages), -rows))
    layer_ms = tuple(stage.layer_ms(rows) for stage in stages)
    return Speeds(layer_ms, rows, _worst_error(stages, [rows] * len(stages)))


def _worst_error(stages: Sequence[StageSteps], rows: Sequence[int]) -> float:
    return max(error_of(stage.times[count]) for stage, count in zip(stages, rows, strict=True))


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
