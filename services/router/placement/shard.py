"""The endpoint `choir.shard`: places a model as a pipeline of stages, or ends one."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from schemas.errors import InvalidRequest, NotReady, UnknownModel
from schemas.pipelines.plan import PipelinePlan, Shard, ShardReply
from services.chassis.nats.endpoints import Caller
from services.chassis.registry.directory import Directory
from services.router.placement.assignment import assigned
from services.router.placement.candidates import (
    Candidate,
    NodePool,
    check_same,
    pool_of,
    preferred,
    require_candidates,
    without_taken,
)
from services.router.placement.plan_builder import make_plan, predicted, same_work
from services.router.placement.planner import Decision, decide
from services.router.placement.replan import gone_stages, improved
from services.tasks.plan_store import PlanStore

ATTEMPTS = 8


class ShardHandler:
    """Decides with the nodes of this moment, and stores the plan."""

    def __init__(self, directory: Directory, plans: PlanStore, instance: str) -> None:
        self._directory = directory
        self._plans = plans
        self._instance = instance

    async def handle(self, spec: Shard, caller: Caller) -> None:
        """Sends the plan; the stages load what they hold after it. Raises a typed error if it is refused."""
        for _ in range(ATTEMPTS):
            reply = await (self._remove(spec) if spec.remove else self._place(spec))
            if reply is not None:
                await caller.send(reply)
                return
        raise NotReady(f"the plan of {spec.model} changes all the time; try again", retry_after_s=1.0)

    async def _remove(self, spec: Shard) -> ShardReply | None:
        plan = self._plans.of(spec.model)
        if spec.plan_only:
            raise InvalidRequest("plan_only: it does not go with remove", field="plan_only")
        if plan is None:
            known = tuple(plan.model for plan in self._plans.all)
            raise UnknownModel(
                f"model: {spec.model!r} runs in no pipeline; those that do: {', '.join(known) or 'none'}",
                field="model",
                known=known,
            )
        if not await self._plans.remove(plan):
            return None
        return ShardReply(model=spec.model, summary=f"the pipeline of {spec.model} is ended")

    async def _place(self, spec: Shard) -> ShardReply | None:
        previous = self._plans.of(spec.model)
        pool, decision = await asyncio.to_thread(
            decided, spec, require_candidates(spec.model, self._directory.nodes), self._plans.all
        )
        summary = predicted(decision, measured=pool.measured)
        why, now_s = f"asked for: {summary}", self._plans.now()
        plan = make_plan(decision, spec, pool, previous, made_by=self._instance, at_s=now_s, why=why)
        if spec.plan_only:
            return ShardReply(model=spec.model, plan=plan, summary=summary)
        if previous is not None and self._stands(previous, plan):
            return ShardReply(model=spec.model, plan=previous, summary=f"{summary} (as before)")
        if not await self._plans.write(plan):
            return None
        return ShardReply(model=spec.model, plan=plan, summary=summary)

    def _stands(self, previous: PipelinePlan, plan: PipelinePlan) -> bool:
        """Whether the same was specified before, and what was planned then is still as good: speeds are never
        measured twice alike, and that is no reason to move layers. Nor is what was measured at the start,
        where the cut was moved since by what the stages measured at work."""
        if previous.wanted != plan.wanted or previous.sha256 != plan.sha256:
            return False
        if same_work(previous, plan):
            return True
        leases, plans = self._directory.nodes, self._plans.all
        same_nodes = [s.instance for s in previous.stages] == [s.instance for s in plan.stages]
        if previous.moved is not None and same_nodes and not gone_stages(previous, leases):
            return True
        planner_chose = not plan.wanted.assign and not gone_stages(previous, leases)
        return planner_chose and improved(previous, leases, plans) is None


def decided(
    spec: Shard, candidates: Sequence[Candidate], plans: Sequence[PipelinePlan]
) -> tuple[NodePool, Decision]:
    """The nodes that come into question, and the split of the model over them: pure."""
    if spec.assign:
        chosen = assigned(spec.assign, candidates, plans)
        check_same(chosen)
        identity = chosen[0].identity
        pool = pool_of([candidate for candidate in candidates if candidate.identity == identity])
        nodes = [node for candidate in chosen if (node := pool.node(candidate.instance))]
        return pool, decide(spec, pool, nodes)
    check_same(candidates)
    free = without_taken(candidates, plans)
    pool = pool_of(preferred(free, spec.stages) or candidates)
    if not free:
        pool = NodePool(pool.model, (), pool.host_bytes, pool.measured)
    return pool, decide(spec, pool)
