"""The placement controller: compares plans with the live nodes again and again, and changes them rarely.

Several routers may do so: a plan is changed by compare-and-set, so one of them wins and the others see it.

- *A node has gone.* The stages have a standby take over within about 1.5 s. Only a plan that still names an
  instance without a lease after `grace_s` is repaired here. If no split is possible, the plan stays as it is,
  and `problems` says why: an instance that comes back under its name goes on with it.
- *A node is to be drained.* Others take its stages at once. If none can, it keeps them, and works on.
- *The nodes are others.* One has joined, or a standby has taken over what suits another better. When they
  have not changed for `settle_s`, nor the plan for `rest_s`, and another plan is worth the interruption
  (`replan.improved`), that is taken, but never while sequences run: those would be worked on again, and a
  better split is not urgent.
- *The stages take other times than was thought*, while they run: that is the rebalancer's, if there is one.
"""

from __future__ import annotations

import asyncio
import random
import time
from dataclasses import dataclass

import nats.errors
import nats.js.errors

from schemas.errors import BrokerUnavailable, InvalidRequest
from schemas.nodes.lease import NodeLease
from schemas.pipelines.plan import PipelinePlan
from services.chassis.logs import get_logger
from services.chassis.process.supervise import Loops
from services.chassis.registry.directory import Directory
from services.router.placement.cuts.rebalancer import Rebalancer
from services.router.placement.plan_builder import make_plan, same_work
from services.router.placement.replan import (
    Remedy,
    fitting_candidates,
    gone_stages,
    improved,
    leaving_stages,
    repaired,
)
from services.tasks.plan_store import PlanStore

JITTER = 0.3
"""Routers that look at different moments are in each other's way less often."""

Seen = tuple[int, frozenset[tuple[str, float]]]

log = get_logger("router.placement")


@dataclass
class Watch:
    """One pipeline, as earlier looks have shown it. Times are of the monotonic clock."""

    epoch: int
    since_s: float
    gone_since_s: float | None = None
    nodes: Seen | None = None
    nodes_since_s: float = 0.0
    weighed: Seen | None = None


class Controller:
    """Looks after all plans. `problems` has a sentence for each pipeline that cannot run, `stuck` for each
    that runs where it ought to leave."""

    def __init__(
        self,
        directory: Directory,
        plans: PlanStore,
        instance: str,
        loops: Loops,
        *,
        look_interval_s: float,
        grace_s: float,
        settle_s: float,
        rest_s: float,
        rebalancer: Rebalancer | None = None,
    ) -> None:
        self._rebalancer = rebalancer
        self._directory = directory
        self._plans = plans
        self._instance = instance
        self._loops = loops
        self._grace_s, self._settle_s, self._rest_s = grace_s, settle_s, rest_s
        self._look_interval_s = look_interval_s
        self._watches: dict[str, Watch] = {}
        self._task: asyncio.Task[None] | None = None
        self.problems: dict[str, str] = {}
        self.stuck: dict[str, str] = {}

    async def start(self) -> None:
        """Looks from now on."""
        self._task = self._loops.start(self._look_for_ever(), "placement")

    async def stop(self) -> None:
        """Looks no more."""
        if self._task is not None:
            self._task.cancel()

    async def _look_for_ever(self) -> None:
        while True:
            await asyncio.sleep(self._look_interval_s * random.uniform(1 - JITTER, 1 + JITTER))
            try:
                await self.look()
            except (BrokerUnavailable, nats.errors.Error, nats.js.errors.Error) as error:
                log.warning("placement interrupted", why=str(error) or type(error).__name__)

    async def look(self) -> None:
        """Looks at every plan once."""
        plans = self._plans.all
        models = {plan.model for plan in plans}
        self._watches = {model: watch for model, watch in self._watches.items() if model in models}
        self.problems = {model: why for model, why in self.problems.items() if model in models}
        self.stuck = {model: why for model, why in self.stuck.items() if model in models}
        if self._rebalancer is not None:
            self._rebalancer.keep(models)
        for plan in plans:
            await self._look_at(plan, self._directory.nodes)

    async def _look_at(self, plan: PipelinePlan, leases: tuple[NodeLease, ...]) -> None:
        watch = self._watches.get(plan.model)
        if watch is None or watch.epoch != plan.epoch:
            watch = self._watches[plan.model] = Watch(plan.epoch, time.monotonic())
        leaving = leaving_stages(plan, leases)
        if leaving:
            await self._mend(plan, leaving, leases, watch)
            return
        watch.gone_since_s = None
        self.problems.pop(plan.model, None)
        self.stuck.pop(plan.model, None)
        if self._is_due(plan, leases, watch):
            await self._improve(plan, leases)
        elif self._rebalancer is not None:
            await self._rebalancer.look(plan, leases)

    async def _mend(
        self, plan: PipelinePlan, leaving: tuple[int, ...], leases: tuple[NodeLease, ...], watch: Watch
    ) -> None:
        now, gone = time.monotonic(), gone_stages(plan, leases)
        if not gone:
            watch.gone_since_s = None
            self.problems.pop(plan.model, None)
        elif watch.gone_since_s is None:
            watch.gone_since_s = now
        if watch.gone_since_s is not None and now - watch.gone_since_s < self._grace_s:
            return
        try:
            remedy = await asyncio.to_thread(repaired, plan, leaving, leases, self._plans.all)
        except InvalidRequest as error:
            if gone:
                self.problems[plan.model] = _broken(plan, gone, leases, error)
            else:
                self.stuck[plan.model] = _stuck(plan, leaving, error)
            return
        await self._take(plan, remedy)

    def _is_due(self, plan: PipelinePlan, leases: tuple[NodeLease, ...], watch: Watch) -> bool:
        """Whether nodes or plan have changed, have settled since, and nothing runs."""
        candidates = fitting_candidates(plan, leases, self._plans.all)
        nodes = (
            plan.epoch,
            frozenset((candidate.instance, candidate.lease.started_at_s) for candidate in candidates),
        )
        now = time.monotonic()
        if watch.nodes != nodes:
            watch.nodes, watch.nodes_since_s = nodes, now
        settled = now - watch.nodes_since_s >= self._settle_s and now - watch.since_s >= self._rest_s
        if watch.weighed == nodes or not settled or is_busy(plan, leases):
            return False
        watch.weighed = nodes
        return True

    async def _improve(self, plan: PipelinePlan, leases: tuple[NodeLease, ...]) -> None:
        remedy = await asyncio.to_thread(improved, plan, leases, self._plans.all)
        if remedy is not None:
            await self._take(plan, remedy)

    async def _take(self, plan: PipelinePlan, remedy: Remedy) -> None:
        new = make_plan(
            remedy.decision, plan.wanted, remedy.pool, plan,
            made_by=self._instance, at_s=self._plans.now(), why=remedy.why,
        )  # fmt: skip
        if same_work(new, plan):
            return
        if await self._plans.write(new):
            self.problems.pop(plan.model, None)
            self.stuck.pop(plan.model, None)
            log.info("pipeline planned anew", model=plan.model, epoch=new.epoch, why=remedy.why)


def is_busy(plan: PipelinePlan, leases: tuple[NodeLease, ...]) -> bool:
    """Whether the first stage works on a sequence, as far as its lease says."""
    first = plan.stages[0].instance
    return any(
        model.busy > 0
        for lease in leases
        if lease.instance == first and lease.stage is not None
        for model in lease.models
        if model.name == plan.model
    )


def _broken(
    plan: PipelinePlan, gone: tuple[int, ...], leases: tuple[NodeLease, ...], error: InvalidRequest
) -> str:
    """Which stages have no node, what those say that are there and cannot work, and what to do."""
    said = {lease.instance: lease.problem.message for lease in leases if lease.problem is not None}
    stages = [(k, plan.stages[k]) for k in gone]
    named = ", ".join(
        f"stage {k} (layers {stage.first_layer} to {stage.end_layer - 1}, on {stage.instance}"
        + (f", which says: {said[stage.instance]})" if stage.instance in said else ")")
        for k, stage in stages
    )
    return (
        f"the pipeline of {plan.model} has no node for {named}: {error.message}; start what is missing, or "
        f"end it with `choir shard {plan.model} --remove`"
    )


def _stuck(plan: PipelinePlan, leaving: tuple[int, ...], error: InvalidRequest) -> str:
    """The sentence about instances whose layers no other instance can take."""
    names = ", ".join(plan.stages[k].instance for k in leaving)
    return (
        f"the pipeline of {plan.model} stays on {names}, which is to be drained: {error.message}; start "
        f"another node, or end it with `choir shard {plan.model} --remove`"
    )
