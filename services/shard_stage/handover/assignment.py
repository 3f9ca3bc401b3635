"""The assignment of an instance: its place in a plan, and what it knows of the pipeline."""

from __future__ import annotations

from dataclasses import dataclass

from schemas.errors import ModelUnusable
from schemas.nodes.lease import NodeLease
from schemas.pipelines.plan import PipelinePlan, Shardable
from services.engine.decode.stage_context import StageContext

LOG_MARGIN_S = 3.0
"""Clocks differ: the log is read from so long before the oldest live sequence began."""


@dataclass(frozen=True)
class Assignment:
    """Stage `stage` of a plan."""

    plan: PipelinePlan
    stage: int

    @property
    def layers(self) -> range:
        """The layers of the stage."""
        spec = self.plan.stages[self.stage]
        return range(spec.first_layer, spec.end_layer)

    @property
    def next(self) -> Assignment | None:
        """The same stage after the move of the cut for which the plan has it make ready; None without one."""
        if self.plan.moving is None:
            return None
        stages = list(self.plan.stages)
        first, end = self.plan.moving.slice_of(self.stage)
        stages[self.stage] = stages[self.stage].model_copy(update={"first_layer": first, "end_layer": end})
        return Assignment(self.plan.model_copy(update={"stages": tuple(stages)}), self.stage)

    def same_place(self, other: Assignment) -> bool:
        """Whether what was loaded for the one serves the other."""
        fixed = ("model", "number", "sha256", "slots", "context_tokens", "dtype")
        same = all(getattr(self.plan, name) == getattr(other.plan, name) for name in fixed)
        last = len(self.plan.stages) == len(other.plan.stages)
        return same and last and self.stage == other.stage and self.layers == other.layers

    def need_bytes(self, model: Shardable) -> int:
        """The memory of the place: weights and cells."""
        layers, plan = self.layers, self.plan
        weights = sum(model.layer_bytes[layer] for layer in layers if layer < model.layers)
        cells = model.cell_bytes * len(layers) * plan.slots * plan.context_tokens
        ends = model.first_bytes * (self.stage == 0)
        ends += model.last_bytes * (self.stage == len(plan.stages) - 1)
        return weights + cells + ends

    def check(self, context: StageContext) -> None:
        """Raises ModelUnusable for a slice that is not the one that the plan asks for."""
        origin = context.origin
        found = (origin.source_sha256, origin.first_layer, origin.end_layer)
        if found != (self.plan.sha256, self.layers.start, self.layers.stop):
            path, model = context.weights.path, self.plan.model
            raise ModelUnusable(f"{path} is not the slice of {model} that the plan asks for")


@dataclass(frozen=True)
class Handover:
    """The live sequences of a pipeline, as an instance knows them that takes a place in it."""

    live: frozenset[int] | None = None
    since_s: float | None = None

    @property
    def log_from_s(self) -> float | None:
        """From when on the log is read, in seconds since the epoch; None for all of it."""
        return None if self.since_s is None else self.since_s - LOG_MARGIN_S


def holds_place(lease: NodeLease, plan: PipelinePlan, stage: int) -> bool:
    """Whether an instance was ready in its place of this plan when it took its lease."""
    held = lease.stage.held if lease.stage is not None else None
    if held is None or not held.ready or (held.model, held.stage) != (plan.model, stage):
        return False
    spec = plan.stages[stage]
    same_layers = (held.first_layer, held.end_layer) == (spec.first_layer, spec.end_layer)
    return same_layers and (plan.since_epoch or plan.epoch) <= held.epoch <= plan.epoch
