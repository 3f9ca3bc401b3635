"""Decides when a plan is changed, and into what: pure.

A stage that dies is the pipeline's own business first: a standby takes its place within seconds, by
compare-and-set of the plan. What is decided here is for a plan that still names a dead instance afterwards,
and for nodes that have joined.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from schemas.errors import InvalidRequest
from schemas.nodes.lease import NodeLease
from schemas.pipelines.plan import PipelinePlan, Shard, StagePlan
from services.router.placement.candidates import (
    Candidate,
    NodePool,
    candidates_of,
    check_same,
    pool_of,
    preferred,
    without_taken,
)
from services.router.placement.cost_model import Node, Slices, Split, StagePlacement
from services.router.placement.planner import Decision, decide

JOIN_GAIN = 0.2
"""A better plan must be better by this share: moving layers costs a load and, sometimes, work done twice."""
INTERRUPTION_MS = 3_000.0
"""Cost of a change: the pipeline is away for about so long."""
PAYBACK_TOKENS = 2_000
"""So many tokens must win the interruption back. It keeps a plan where a fifth is less than what measurements
of the same node differ by."""


@dataclass(frozen=True)
class Remedy:
    """The next plan, and the reason."""

    decision: Decision
    pool: NodePool
    why: str


def gone_stages(plan: PipelinePlan, leases: Sequence[NodeLease]) -> tuple[int, ...]:
    """The stages whose instances are not there, or cannot work."""
    alive = {lease.instance for lease in leases if lease.stage and lease.state != "broken"}
    return tuple(k for k, stage in enumerate(plan.stages) if stage.instance not in alive)


def leaving_stages(plan: PipelinePlan, leases: Sequence[NodeLease]) -> tuple[int, ...]:
    """The same, and those whose instances are to be drained."""
    drained = {lease.instance for lease in leases if lease.cordon == "drain"}
    gone = gone_stages(plan, leases)
    return tuple(k for k, stage in enumerate(plan.stages) if k in gone or stage.instance in drained)


def fitting_candidates(
    plan: PipelinePlan, leases: Sequence[NodeLease], plans: Sequence[PipelinePlan]
) -> tuple[Candidate, ...]:
    """Candidates with the very file that the plan is about, which hold nothing of another model."""
    candidates = candidates_of(plan.model, leases)
    same = [o for o in candidates if (o.model.sha256, o.model.layers) == (plan.sha256, plan.layers)]
    return without_taken(same, plans)


def standbys(
    plan: PipelinePlan, leases: Sequence[NodeLease], plans: Sequence[PipelinePlan]
) -> tuple[str, ...]:
    """Instances that could take a stage's place."""
    used = {stage.instance for stage in plan.stages}
    return tuple(o.instance for o in fitting_candidates(plan, leases, plans) if o.instance not in used)


def repaired(
    plan: PipelinePlan, gone: Sequence[int], leases: Sequence[NodeLease], plans: Sequence[PipelinePlan]
) -> Remedy:
    """The plan without the instances that are gone, or are to go.

    Another instance takes the same layers, if one has room, so that the other stages keep what they have;
    else the model is split anew, into the number of stages that was wanted or, if there are too few nodes for
    that, any. Raises InvalidRequest, with the reason, if no split is possible.
    """
    candidates = fitting_candidates(plan, leases, plans)
    lost = ", ".join(plan.stages[k].instance for k in gone)
    how = "gone" if gone_stages(plan, leases) else "to be drained"
    if not candidates:
        raise InvalidRequest(f"no live node offers {plan.model} any more ({lost} is {how})", field="stages")
    check_same(candidates)
    pool = pool_of(candidates)
    wanted = _forced(plan.wanted)
    replaced = current_split(plan, gone, pool)
    if replaced is not None:
        names = ", ".join(replaced.placements[k].node.instance for k in gone)
        return Remedy(_decision(plan, replaced), pool, f"{names} takes the place of {lost}, which is {how}")
    pool = pool_of(preferred(candidates, wanted.stages))
    try:
        decision = decide(wanted, pool)
    except InvalidRequest:
        decision = decide(wanted.model_copy(update={"stages": None}), pool_of(preferred(candidates, None)))
    return Remedy(decision, pool, f"split anew, since {lost} is {how}")


def improved(plan: PipelinePlan, leases: Sequence[NodeLease], plans: Sequence[PipelinePlan]) -> Remedy | None:
    """A plan that is worth a change now that nodes have joined, for one whose instances are all there.

    See `_is_better`; it is also worth it where the plan has another number of stages than was wanted. What a
    user assigned stays as it is.
    """
    candidates = fitting_candidates(plan, leases, plans)
    if plan.wanted.assign or len({candidate.identity for candidate in candidates}) != 1:
        return None
    wanted = _forced(plan.wanted)
    current = current_split(plan, (), pool_of(candidates))
    if current is None:
        return None
    pool = pool_of(preferred(candidates, wanted.stages))
    try:
        decision = decide(wanted, pool)
    except InvalidRequest:
        return None
    if plan.moved is not None and _instances(decision.split) == {stage.instance for stage in plan.stages}:
        return None  # what these nodes have measured at work counts for more than what they did at the start
    if plan.wanted.stages not in (None, len(plan.stages)):
        return Remedy(decision, pool, f"back to {plan.wanted.stages} stages, as was wanted")
    if not _is_better(decision.split, current, plan.slots):
        return None
    gain = f"{current.slowest_ms:.2f} to {decision.split.slowest_ms:.2f} ms"
    return Remedy(decision, pool, f"a better split of these nodes: the slowest stage goes from {gain}")


def _is_better(new: Split, current: Split, slots: int) -> bool:
    """More tokens per second by JOIN_GAIN, for a token that takes not much longer; or a token in less time by
    as much, for no fewer tokens per second; and the interruption is won back within PAYBACK_TOKENS."""
    gain_ms = max(current.slowest_ms - new.slowest_ms, current.total_ms - new.total_ms)
    if gain_ms * PAYBACK_TOKENS < INTERRUPTION_MS:
        return False
    faster = new.tokens_per_s(slots) / (current.tokens_per_s(slots) or 1.0)
    shorter = current.total_ms / (new.total_ms or 1.0)
    if faster >= 1 + JOIN_GAIN:
        return shorter >= 1 - JOIN_GAIN
    return shorter >= 1 + JOIN_GAIN and faster >= 1


def _forced(wanted: Shard) -> Shard:
    """The specification for the next plan: it has been weighed once, and an assignment has failed."""
    stages = wanted.stages or len(wanted.assign) or None
    return wanted.model_copy(update={"force": True, "assign": (), "stages": stages})


def current_split(plan: PipelinePlan, gone: Sequence[int], pool: NodePool) -> Split | None:
    """The plan's own slices, with free nodes for the stages that are gone; None where there are none with
    enough memory, or a node of the plan is not in the pool."""
    slices = Slices.of(pool.model, plan.slots, plan.context_tokens)
    free = {node.instance: node for node in pool.nodes}
    for stage in plan.stages:
        free.pop(stage.instance, None)
    placements = []
    for k, stage in enumerate(plan.stages):
        placement = _placement(stage, slices, pool)
        node = _best_for(placement, slices, list(free.values())) if k in gone else pool.node(stage.instance)
        if node is None:
            return None
        free.pop(node.instance, None)
        placements.append(replace(placement, node=node))
    return Split(slices, tuple(placements))


def _instances(split: Split) -> set[str]:
    return {placement.node.instance for placement in split.placements}


def _placement(stage: StagePlan, slices: Slices, pool: NodePool) -> StagePlacement:
    start, end = slices.borders.index(stage.first_layer), slices.borders.index(stage.end_layer)
    return StagePlacement(pool.nodes[0], start, end)


def _best_for(placement: StagePlacement, slices: Slices, nodes: Sequence[Node]) -> Node | None:
    need = slices.need_bytes(placement.start, placement.end)
    able = [node for node in nodes if node.memory_bytes >= need]
    steps = [(slices.step_ms(node, placement.start, placement.end), node.instance, node) for node in able]
    return min(steps, key=lambda step: step[:2])[2] if steps else None


def _decision(plan: PipelinePlan, split: Split) -> Decision:
    return Decision(split, plan.whole_ms, None, plan.slots, plan.context_tokens)
