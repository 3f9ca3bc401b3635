"""When a plan is looked at, and by which rules it is written."""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

import pytest
from nats.aio.client import Client

from schemas.nodes import NodeLease
from schemas.pipelines import PipelinePlan, Shard
from services.chassis.identity import Identity
from services.chassis.registry.directory import Directory
from services.chassis.supervise import Loops
from services.router.placement.candidates import offers_of
from services.router.placement.controller import Controller
from services.router.placement.plan_builder import make_plan
from services.router.placement.shard import decided
from services.router.placement.tests.offering import MODEL, speeds
from services.tasks.plan_store import PlanStore

NEVER_S = 3600.0
TWO, WITH_A_FAST_ONE = speeds(1.0, 1.0), speeds(1.0, 1.0, 0.1)


@dataclass
class Nodes:
    """A directory of these leases."""

    nodes: tuple[NodeLease, ...]


def plan_for(leases: list[NodeLease], number: int) -> PipelinePlan:
    shard = Shard(model=MODEL, stages=2)
    fleet, decision = decided(shard, offers_of(MODEL, leases), ())
    plan = make_plan(decision, shard, fleet, None, made_by="router", at_s=0.0, why="a test")
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


def controller(plans: PlanStore, rest_s: float) -> Controller:
    directory = cast(Directory, Nodes(tuple(WITH_A_FAST_ONE)))
    return Controller(
        directory, plans, "router", Loops(), look_interval_s=1.0, grace_s=0.0, settle_s=0.0, rest_s=rest_s
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
