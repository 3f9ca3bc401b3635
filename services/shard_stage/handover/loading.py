"""Loads the slice of a place: weights, and cells for the sequences of the plan."""

from __future__ import annotations

from pathlib import Path

from services.engine.decode.stage_context import StageContext
from services.engine.model.model import Model, Weights
from services.shard_stage.handover.assignment import Assignment
from services.shard_stage.pipeline.later_stage import BATCH_TOKENS


def load_slice(path: Path, assignment: Assignment, threads: int, gpu_layers: int = 0) -> StageContext:
    """The slice at `path`, of which the outer stages have the vocabulary. `gpu_layers` is as in
    the stage's settings. Blocks, on any thread; raises ModelUnusable where it cannot be loaded."""
    plan = assignment.plan
    outer = assignment.stage in (0, len(plan.stages) - 1)
    weights = (Model if outer else Weights)(path, gpu_layers=gpu_layers)
    return StageContext(
        weights,
        slots=plan.slots,
        context_tokens=plan.context_tokens,
        batch_tokens=BATCH_TOKENS,
        threads=threads,
    )
