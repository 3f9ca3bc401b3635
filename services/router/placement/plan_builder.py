"""Builds the plan that is stored, from a split."""

from __future__ import annotations

import secrets
from collections.abc import Iterable

from schemas.pipelines.plan import CutMove, PipelinePlan, Shard, StagePlan
from services.router.placement.candidates import NodePool
from services.router.placement.cost_model import Split, powers_of_two
from services.router.placement.planner import Decision, only_slows

NUMBER_BITS = 62
UNKNOWN_MS = 0.0


def make_plan(
    decision: Decision,
    spec: Shard,
    pool: NodePool,
    previous: PipelinePlan | None,
    *,
    made_by: str,
    at_s: float,
    why: str,
    moved: CutMove | None = None,
) -> PipelinePlan:
    """The plan of the next epoch, of the same number as `previous`. Where no speed is known its predictions
    are 0. `moved` is the move of the cut that it makes; if it makes none, and has the same cuts, the last one
    is remembered."""
    split, model = decision.split, pool.model
    plan = PipelinePlan(
        model=model.name,
        number=previous.number if previous else secrets.randbits(NUMBER_BITS) + 1,
        epoch=previous.epoch + 1 if previous else 1,
        sha256=model.sha256,
        architecture=model.architecture,
        layers=model.layers,
        width=model.width,
        slots=decision.slots,
        context_tokens=decision.context_tokens,
        dtype=spec.dtype,
        partition=spec.partition,
        stages=_stages(decision, measured=pool.measured),
        predicted_ms=split.total_ms if pool.measured else UNKNOWN_MS,
        whole_ms=decision.whole_ms if pool.measured else None,
        wanted=spec,
        made_by=made_by,
        made_at_s=at_s,
        why=why,
    )
    if moved is None and previous is not None and _meaning(plan) == _meaning(previous):
        moved = previous.moved
    return plan.model_copy(update={"since_epoch": _since_epoch(plan, previous), "moved": moved})


def _since_epoch(plan: PipelinePlan, previous: PipelinePlan | None) -> int | None:
    """Since when the frames of the log mean what they mean now; None for from this epoch on."""
    if previous is None or _meaning(plan) != _meaning(previous):
        return None
    return previous.since_epoch or previous.epoch


def _meaning(plan: PipelinePlan) -> tuple[object, ...]:
    return plan.sha256, plan.dtype, tuple(stage.end_layer for stage in plan.stages)


def _stages(decision: Decision, *, measured: bool) -> tuple[StagePlan, ...]:
    split = decision.split
    borders = split.slices.borders
    return tuple(
        StagePlan(
            instance=placement.node.instance,
            host=placement.node.host,
            first_layer=borders[placement.start],
            end_layer=borders[placement.end],
            predicted_ms=step_ms if measured else UNKNOWN_MS,
        )
        for placement, step_ms in zip(split.placements, split.steps_ms, strict=True)
    )


def same_work(one: PipelinePlan, other: PipelinePlan) -> bool:
    """Whether two plans have the same instances do the same."""
    return _work(one) == _work(other)


def _work(plan: PipelinePlan) -> tuple[object, ...]:
    stages = tuple((stage.instance, stage.first_layer, stage.end_layer) for stage in plan.stages)
    return plan.sha256, plan.slots, plan.context_tokens, plan.dtype, plan.partition, stages


def predicted(decision: Decision, *, measured: bool) -> str:
    """The expected speed, in a sentence."""
    split, whole = decision.split, decision.whole
    stages = _stages_told(split)
    if not measured:
        return f"{stages}; no node has measured its speed, so nothing is predicted"
    rate = split.tokens_per_s(decision.slots)
    told = f"{stages}: {split.total_ms:.2f} ms a token, up to {rate:.0f} tokens/s with overlap, predicted"
    if whole is None:
        return f"{told}; no single node can hold it"
    alone = f"{whole.placements[0].node.instance} alone"
    if len(split.placements) > 1:
        slower = ": this only slows it down" if only_slows(decision) else ""
        return f"{told}; {alone} would take {whole.total_ms:.2f} ms{slower}; {_rates(decision, split, alone)}"
    if decision.passed_over is None:
        return f"{told}; {alone} takes {whole.total_ms:.2f} ms"
    return f"{told}; not split, as that gains too little: {_rates(decision, decision.passed_over, alone)}"


def _stages_told(split: Split) -> str:
    count = len(split.placements)
    return "1 stage" if count == 1 else f"{count} stages"


def _rates(decision: Decision, split: Split, alone: str) -> str:
    """The tokens per second of a split and of one node, for 1, 2, 4 ... streams up to the slots."""
    assert decision.whole is not None
    streams = powers_of_two(decision.slots)

    def listed(numbers: Iterable[float]) -> str:
        return " / ".join(f"{number:.0f}" for number in numbers)

    of_split = listed(map(split.tokens_per_s, streams))
    of_whole = listed(map(decision.whole.tokens_per_s, streams))
    return f"tokens/s at {listed(streams)} streams: {_stages_told(split)} {of_split}, {alone} {of_whole}"
