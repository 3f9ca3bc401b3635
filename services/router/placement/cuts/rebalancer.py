"""The rebalancer: moves the cuts of running pipelines, as `rebalance` decides, in two epochs.

In the first the plan says where the cut is going (`moving`): the stages go on, write the slices that they
lack and load them where memory allows. When all of them say in their leases that they have theirs, the second
epoch has the new cut: texts are computed again from what stage 0 knows, as after a failure, and go on. A move
whose stages change meanwhile, or do not get ready in time, is called off; nothing has happened then.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise

from schemas.events import CutMoved
from schemas.nodes.lease import NodeLease
from schemas.pipelines.plan import CutMove, PipelinePlan
from services.chassis.logs import get_logger
from services.chassis.telemetry.events import EventLog
from services.router.placement.candidates import pool_of
from services.router.placement.cuts.measured import held_stage
from services.router.placement.cuts.rebalance import Trend, next_move, weighed
from services.router.placement.cuts.stakes import HORIZON_S
from services.router.placement.plan_builder import make_plan
from services.router.placement.planner import Decision
from services.router.placement.replan import current_split, fitting_candidates
from services.tasks.plan_store import PlanStore

PREPARING_S = 300.0
"""A slice of a large model may have to come from another host."""
CALLED_OFF_REST_S = 300.0
S_PER_MIN = 60

log = get_logger("router.rebalancer")


@dataclass
class Course:
    """One pipeline in one epoch: what its windows have said, and when the next one ends."""

    epoch: int
    window_ends_s: float
    trend: Trend = field(default_factory=Trend)


class Rebalancer:
    """Looks at running pipelines. Several routers may do so: a plan is changed by compare-and-set."""

    def __init__(
        self,
        plans: PlanStore,
        events: EventLog,
        instance: str,
        *,
        window_s: float,
        rest_s: float,
    ) -> None:
        self._plans = plans
        self._events = events
        self._instance = instance
        self._window_s, self._rest_s = window_s, rest_s
        self._courses: dict[str, Course] = {}
        self._not_before_s: dict[str, float] = {}

    def keep(self, models: set[str]) -> None:
        """Forgets all pipelines but those of these models."""
        self._courses = {model: course for model, course in self._courses.items() if model in models}
        self._not_before_s = {m: at_s for m, at_s in self._not_before_s.items() if m in models}

    async def look(self, plan: PipelinePlan, leases: Sequence[NodeLease]) -> None:
        """Looks at a pipeline whose instances are all there. Raises BrokerUnavailable."""
        now_s = time.monotonic()
        course = self._courses.get(plan.model)
        if course is None or course.epoch != plan.epoch:
            course = self._courses[plan.model] = Course(plan.epoch, now_s + self._window_s)
        if plan.moving is not None:
            await self._finish(plan, plan.moving, leases)
        elif now_s >= course.window_ends_s:
            course.window_ends_s = now_s + self._window_s
            await self._weigh(plan, leases, course, now_s)

    async def _weigh(
        self, plan: PipelinePlan, leases: Sequence[NodeLease], course: Course, now_s: float
    ) -> None:
        window = course.trend.take(plan, weighed(plan, leases, self._plans.all))
        if window is None or now_s < self._not_before_s.get(plan.model, now_s):
            return
        move = next_move(plan, window, course.trend, self._plans.now(), self._rest_s)
        if move is not None:
            why = f"the stages make ready for layers {_told(move.ends)} instead of {_told(move.ends_before)}"
            await self._write(plan, move, why)

    async def _finish(self, plan: PipelinePlan, move: CutMove, leases: Sequence[NodeLease]) -> None:
        """Makes the move if all stages are ready for it, calls it off if that takes too long."""
        if all(_is_prepared(plan, move, number, leases) for number in range(len(plan.stages))):
            await self._move(plan, move, leases)
        elif self._plans.now() - move.at_s > PREPARING_S:
            self._not_before_s[plan.model] = time.monotonic() + CALLED_OFF_REST_S
            await self._write(plan, None, "a move of the cut was called off: not all stages got ready for it")

    async def _move(self, plan: PipelinePlan, move: CutMove, leases: Sequence[NodeLease]) -> None:
        stages = [
            stage.model_copy(update={"first_layer": first, "end_layer": end})
            for stage, (first, end) in (
                (stage, move.slice_of(number)) for number, stage in enumerate(plan.stages)
            )
        ]
        pool = pool_of(fitting_candidates(plan, leases, self._plans.all))
        split = current_split(plan.model_copy(update={"stages": tuple(stages)}), (), pool)
        if split is None:
            return
        made = move.model_copy(update={"at_s": self._plans.now()})
        why = (
            f"layers {_told(move.ends)} instead of {_told(move.ends_before)}, as the stages have measured: "
            f"{move.gain:.0%} more tokens a second expected{_stakes_of(move)}"
        )
        decision = Decision(split, plan.whole_ms, None, plan.slots, plan.context_tokens)
        new = make_plan(
            decision, plan.wanted, pool, plan, made_by=self._instance, at_s=made.at_s, why=why, moved=made
        )
        if not await self._plans.write(new):
            return
        log.info("the cut of a pipeline is moved", model=plan.model, epoch=new.epoch, why=why)
        self._events.publish(
            CutMoved,
            pipeline=plan.model,
            epoch=new.epoch,
            layers_before=_sizes(move.ends_before),
            layers=_sizes(move.ends),
            rows=move.rows,
            slowest_ms=move.slowest_ms,
            predicted_ms=move.predicted_ms,
            gain=move.gain,
            rest_s=move.rest_s,
            live_tokens=move.live_tokens,
            lost_s=move.lost_s,
            gained_s=move.gained_s,
        )

    async def _write(self, plan: PipelinePlan, moving: CutMove | None, why: str) -> None:
        """The same plan in the next epoch, with another intention."""
        update = {
            "epoch": plan.epoch + 1,
            "since_epoch": plan.since_epoch or plan.epoch,
            "moving": moving,
            "made_by": self._instance,
            "made_at_s": self._plans.now(),
            "why": why,
        }
        if await self._plans.write(plan.model_copy(update=update)):
            log.info("the cut of a pipeline is to move", model=plan.model, epoch=plan.epoch + 1, why=why)


def _is_prepared(plan: PipelinePlan, move: CutMove, number: int, leases: Sequence[NodeLease]) -> bool:
    """Whether a stage has the slice at hand that it is to hold."""
    stage, wanted = plan.stages[number], move.slice_of(number)
    held = held_stage(plan, number, leases)
    if held is None or not held.ready:
        return False
    return held.prepared == wanted or (stage.first_layer, stage.end_layer) == wanted


def _stakes_of(move: CutMove) -> str:
    """What a move costs and spares, in words; nothing of one that an older router has begun."""
    if move.lost_s is None or move.gained_s is None:
        return ""
    minutes = HORIZON_S / S_PER_MIN
    return f", for {move.lost_s:.1f} s without: {move.gained_s:.0f} s are spared in {minutes:.0f} min"


def _sizes(ends: Sequence[int]) -> tuple[int, ...]:
    """How many layers each stage has."""
    return tuple(end - start for start, end in pairwise((0, *ends)))


def _told(ends: Sequence[int]) -> str:
    return " + ".join(map(str, _sizes(ends)))
