"""The summary of a pipeline as it is now, from its plan and the leases: pure."""

from __future__ import annotations

from collections.abc import Sequence

from schemas.nodes.lease import NodeLease
from schemas.pipelines.plan import (
    PipelinePlan,
    PipelineState,
    PipelineSummary,
    StageHeld,
    StagePlan,
    StageSummary,
)
from services.router.placement.cuts.measured import held_stage, measured_speeds
from services.router.placement.replan import gone_stages, standbys

MS_PER_S = 1e3


def summarize_pipeline(
    plan: PipelinePlan,
    leases: Sequence[NodeLease],
    plans: Sequence[PipelinePlan],
    problem: str | None = None,
) -> PipelineSummary:
    """The plan with what its instances say; `problem` is why it cannot be mended."""
    gone = gone_stages(plan, leases)
    by_instance = {lease.instance: lease for lease in leases if lease.stage is not None}
    speeds = measured_speeds(plan, leases)
    layers_ms = (
        speeds.layer_ms if speeds is not None and speeds.rows is not None else (None,) * len(plan.stages)
    )
    stages = tuple(
        _stage(stage, held_stage(plan, k, leases), layer_ms, alive=k not in gone)
        for k, (stage, layer_ms) in enumerate(zip(plan.stages, layers_ms, strict=True))
    )
    first = by_instance.get(plan.stages[0].instance)
    return PipelineSummary(
        model=plan.model,
        epoch=plan.epoch,
        state=_state(stages),
        stages=stages,
        standbys=standbys(plan, leases, plans),
        slots=plan.slots,
        context_tokens=plan.context_tokens,
        dtype=plan.dtype,
        partition=plan.partition,
        predicted_ms=plan.predicted_ms,
        whole_ms=plan.whole_ms,
        measured_ms=_measured_ms(plan.model, first),
        why=plan.why,
        problem=problem,
        moved=plan.moved,
        moving=plan.moving,
    )


def _stage(stage: StagePlan, held: StageHeld | None, layer_ms: float | None, *, alive: bool) -> StageSummary:
    return StageSummary(
        instance=stage.instance,
        host=stage.host,
        first_layer=stage.first_layer,
        end_layer=stage.end_layer,
        alive=alive,
        ready=alive and held is not None and held.ready,
        predicted_ms=stage.predicted_ms,
        step_ms=held.step_ms if held is not None else None,
        layer_ms=layer_ms,
    )


def _state(stages: Sequence[StageSummary]) -> PipelineState:
    if not all(stage.alive for stage in stages):
        return "broken"
    return "ready" if all(stage.ready for stage in stages) else "loading"


def _measured_ms(model: str, first: NodeLease | None) -> float | None:
    """Measurements of the first stage, where tokens come out."""
    served = [m for m in first.models if m.name == model] if first is not None else []
    if not served or not served[0].tokens_per_s:
        return None
    return MS_PER_S / served[0].tokens_per_s
