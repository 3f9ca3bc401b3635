"""When a plan is looked at, and by which rules it is written."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

import pytest
from nats.aio.client import Client

from schemas.nodes.lease import NodeLease
from schemas.pipelines.plan import PipelinePlan, Shard
from services.chassis.identity import Identity
from services.chassis.process.supervise import Loops
from services.chassis.registry.directory import Directory
from services.router.placement.candidates import candidates_of
from services.router.placement.controller import Controller
from services.router.placement.plan_builder import make_plan
from services.router.placement.shard import decided
from services.router.placement.tests.offering import MODEL, speeds
from services.tasks.plan_store import PlanStore

NEVER_S = 3600.0
TWO, THREE, WITH_A_FAST_ONE = speeds(1.0, 1.0), speeds(1.0, 1.0, 1.0), speeds(1.0, 1.0, 0.1)


@dataclass
class Nodes:
    """A directory of these leases."""

    nodes: tuple[NodeLease, ...]


def plan_for(leases: list[NodeLease], number: int) -> PipelinePlan:
    shard = Shard(model=MODEL, stages=2)
    pool, decision = decided(shard, candidates_of(MODEL, leases), ())
    plan = make_plan(decision, shard, pool, None, made_by="router", at_s=0.0, why="a test")
    return plan.model_copy(update={"number": number})


@pytest.fixture
async def plans(connection: Client) -> PlanStore:
    """A pipeline on two nodes, in its second epoch: one has just been taken over."""
    plans = PlanStore(connection, Identity.of("router", "router"))
    await plans.start()
    plan = plan_for(TWO, number=7)
    assert await plans.write(plan)
    assert await plans.write(plan.model_copy(update={"epoch": 2}))
    return plans


def controller(
    plans: PlanStore, rest_s: float, leases: Sequence[NodeLease] = WITH_A_FAST_ONE, grace_s: float = 0.0
) -> Controller:
    directory = cast(Directory, Nodes(tuple(leases)))
    return Controller(
        directory, plans, "router", Loops(), look_interval_s=1.0, grace_s=grace_s, settle_s=0.0, rest_s=rest_s
    )


async def test_a_plan_that_has_just_changed_is_left_alone(plans: PlanStore) -> None:
    controlling = controller(plans, rest_s=NEVER_S)
    for _ in range(3):
        await controlling.look()
    assert [plan.epoch for plan in plans.all] == [2]


async def test_after_its_rest_a_much_better_plan_is_taken(plans: PlanStore) -> None:
    controlling = controller(plans, rest_s=0.0)
    for _ in range(3):
        await controlling.look()
    (plan,) = plans.all
    assert plan.epoch == 3 and "c" in {stage.instance for stage in plan.stages}


async def test_others_take_the_stages_of_a_node_that_is_drained_at_once(plans: PlanStore) -> None:
    nodes = [node.model_copy(update={"cordon": "drain"}) if node.instance == "a" else node for node in THREE]
    controlling = controller(plans, rest_s=NEVER_S, leases=nodes, grace_s=NEVER_S)
    await controlling.look()
    (plan,) = plans.all
    assert plan.epoch == 3 and {stage.instance for stage in plan.stages} == {"b", "c"}
    assert "which is to be drained" in plan.why and not controlling.problems


async def test_a_pipeline_that_nobody_else_can_take_works_on_and_says_so(plans: PlanStore) -> None:
    nodes = [node.model_copy(update={"cordon": "drain"}) for node in TWO]
    controlling = controller(plans, rest_s=0.0, leases=nodes)
    await controlling.look()
    assert [plan.epoch for plan in plans.all] == [2]
    assert not controlling.problems
    assert "stays on a, b, which is to be drained" in controlling.stuck[MODEL]
    controlling = controller(plans, rest_s=NEVER_S, leases=TWO)
    await controlling.look()
    assert not controlling.stuck
