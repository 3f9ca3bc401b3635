"""Pipelines at the router: `choir.shard`, plans that follow their nodes, and what clients see of them.

The stages are leases on a real broker: no process is behind them, and the plans are what is tested.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest_asyncio
from nats.aio.client import Client

from infra.host.parts.pipelines import place_when_possible
from infra.testing.mesh import eventually
from schemas import subjects
from schemas.pipelines.plan import PipelinePlan, PipelineSummary, Shard, ShardReply
from schemas.replies import ModelsReply, StatusReply
from services.router.placement.tests.offering import shardable, speeds, stage_memory, two_cores
from services.router.tests.front import Front, open_front
from services.router.tests.offering import (
    Offering,
    offered,
    open_offering,
    stored_plan,
    taken_over,
    write_plan,
)

MODEL = "large"
QUICK = {
    "pipeline_look_interval_s": 0.05,
    "pipeline_grace_s": 0.2,
    "pipeline_settle_s": 0.2,
    "pipeline_rest_s": 0.2,
}
LONG_S = 1.0
"""Many looks of the router, and many times what it waits before it acts."""
HALF_BYTES = stage_memory(6, first=True)


@pytest_asyncio.fixture
async def front(connection: Client, mesh_url: str) -> AsyncIterator[Front]:
    async with open_front(connection, mesh_url, **QUICK) as opened:
        yield opened


@pytest_asyncio.fixture
async def three(front: Front) -> AsyncIterator[Offering]:
    """Three nodes of the same speed, a, b and c."""
    async with open_offering(front.client, *speeds(1.0, 1.0, 1.0)) as offering:
        await nodes_are(front, "a", "b", "c")
        yield offering


async def nodes_are(front: Front, *instances: str) -> None:
    """Waits until the router knows of exactly these stages."""

    async def known() -> bool:
        reply = StatusReply.model_validate_json((await front.request(subjects.STATUS)).data)
        return reply.services.get("shard_stage", 0) == len(instances)

    await eventually(known)


async def shard(front: Front, **fields: Any) -> ShardReply:
    """Asks for a pipeline, which must be granted."""
    reply = await front.request(subjects.SHARD, model=MODEL, **fields)
    assert subjects.ERROR_CODE_HEADER not in (reply.headers or {}), reply.data
    return ShardReply.model_validate_json(reply.data)


async def planned(front: Front, **fields: Any) -> PipelinePlan:
    plan = (await shard(front, **fields)).plan
    assert plan is not None
    return plan


async def pipeline(front: Front) -> PipelineSummary | None:
    """The model's pipeline in `choir.models`."""
    reply = ModelsReply.model_validate_json((await front.request(subjects.MODELS)).data)
    return next((summary for summary in reply.pipelines if summary.model == MODEL), None)


async def plan_changed(front: Front, epoch: int) -> PipelinePlan:
    """The stored plan, once it is of another epoch."""

    async def changed() -> PipelinePlan | None:
        plan = await stored_plan(front.client, MODEL)
        return plan if plan is not None and plan.epoch != epoch else None

    return await eventually(changed)


async def test_a_pipeline_is_planned_stored_and_shown(front: Front, three: Offering) -> None:
    # When somebody asks for two stages
    reply = await shard(front, stages=2)
    # Then the plan is in the bucket, and the reply says what to expect
    plan = await stored_plan(front.client, MODEL)
    assert plan == reply.plan and plan is not None
    assert (plan.epoch, len(plan.stages)) == (1, 2)
    assert "2 stages: 13.20 ms a token" in reply.summary
    # And it is shown as loading, then, when the stages say so, as ready, with what they measure
    summary = await pipeline(front)
    assert summary is not None
    assert (summary.state, len(summary.standbys)) == ("loading", 1)
    await three.load_plan(plan)

    async def ready() -> PipelineSummary | None:
        now = await pipeline(front)
        return now if now is not None and now.state == "ready" else None

    summary = await eventually(ready)
    assert [stage.step_ms for stage in summary.stages] == [1.5, 1.5]
    assert summary.measured_ms == 25.0
    status = StatusReply.model_validate_json((await front.request(subjects.STATUS)).data)
    assert status.pipelines == {MODEL: "ready"}
    assert MODEL in status.models


async def test_a_plan_alone_has_its_figures_and_changes_nothing(front: Front, three: Offering) -> None:
    plan = await planned(front, stages=2, force=True, plan_only=True)
    assert [stage.end_layer for stage in plan.stages][-1] == plan.layers and plan.predicted_ms > 0
    assert await stored_plan(front.client, MODEL) is None and await pipeline(front) is None
    refused = await front.request(subjects.SHARD, model=MODEL, remove=True, plan_only=True)
    assert subjects.ERROR_CODE_HEADER in (refused.headers or {})


async def test_the_same_wish_again_changes_nothing_and_another_one_takes_the_next_epoch(
    front: Front, three: Offering
) -> None:
    first = await planned(front, stages=2)
    assert await planned(front, stages=2) == first
    other = await planned(front, stages=3)
    assert (other.epoch, other.number, len(other.stages)) == (2, first.number, 3)


async def test_the_same_wish_again_moves_no_layers_for_a_speed_that_is_a_little_different(
    front: Front, three: Offering
) -> None:
    plan = await planned(front, stages=2)
    spare = ({"a", "b", "c"} - {stage.instance for stage in plan.stages}).pop()
    # When the free node says that it is a little faster than the others
    await three.leave(spare)
    await nodes_are(front, *({"a", "b", "c"} - {spare}))
    await three.join(offered(spare, shardable(layer_ms=0.95)))
    await nodes_are(front, "a", "b", "c")
    # Then it stays free, until there is another request
    assert await planned(front, stages=2) == plan
    assert spare in {stage.instance for stage in (await planned(front, stages=2, slots=4)).stages}


async def test_two_who_ask_at_once_get_one_plan_after_the_other(front: Front, three: Offering) -> None:
    plans = await asyncio.gather(*(planned(front, stages=2, slots=slots) for slots in (2, 3, 4, 5)))
    assert sorted(plan.epoch for plan in plans) == [1, 2, 3, 4]
    assert len({plan.number for plan in plans}) == 1


async def test_a_removed_pipeline_is_gone_and_a_new_one_has_another_number(
    front: Front, three: Offering
) -> None:
    first = await planned(front, stages=2)
    assert (await shard(front, remove=True)).plan is None
    assert await stored_plan(front.client, MODEL) is None
    assert await pipeline(front) is None
    error = await front.refused(subjects.SHARD, model=MODEL, remove=True)
    assert (error.code, error.field) == ("unknown_model", "model")
    second = await planned(front, stages=2)
    assert second.epoch == 1 and second.number != first.number


async def test_what_cannot_be_is_refused_with_the_field_and_the_way_out(
    front: Front, three: Offering
) -> None:
    async def refused(**fields: Any) -> tuple[str, str | None, str]:
        error = await front.refused(subjects.SHARD, **({"model": MODEL} | fields))
        return error.code, error.field, error.message

    code, field, message = await refused(model="larger")
    assert (code, field) == ("unknown_model", "model") and "offered: large" in message
    code, field, message = await refused(stages=13)
    assert (code, field) == ("invalid_request", "stages") and "1 to 12 stages, not 13" in message
    code, field, message = await refused(stages=4)
    assert (code, field) == ("invalid_request", "stages") and "3 offer large" in message
    code, field, message = await refused(stages=33)
    assert (code, field) == ("invalid_request", "stages")
    code, field, message = await refused(assign=["a", "attic"])
    assert (code, field) == ("invalid_request", "assign") and "nodes: a, b, c" in message
    code, field, message = await refused(assign=["a", "a"])
    assert (code, field) == ("invalid_request", "assign") and "twice" in message
    code, field, message = await refused(assign=["a"], stages=2)
    assert (code, field) == ("invalid_request", "assign")
    code, field, message = await refused(stages=2, context_tokens=4096)
    assert (code, field) == ("invalid_request", "context_tokens") and "1000" in message
    assert await stored_plan(front.client, MODEL) is None


async def test_nodes_with_different_files_are_named(front: Front) -> None:
    nodes = [offered("a"), offered("b", shardable(sha256="b" * 64))]
    async with open_offering(front.client, *nodes):
        await nodes_are(front, "a", "b")
        error = await front.refused(subjects.SHARD, model=MODEL, stages=2)
        assert (error.code, error.field) == ("invalid_request", "model")
        assert "a: sha256 aaaaaaaaaaaa; b: sha256 bbbbbbbbbbbb" in error.message
        assert len((await planned(front, assign=["b"])).stages) == 1


async def test_a_split_that_only_slows_down_takes_force(front: Front) -> None:
    async with open_offering(front.client, *speeds(1.0, 50.0)):
        await nodes_are(front, "a", "b")
        error = await front.refused(subjects.SHARD, model=MODEL, stages=2)
        assert "would only slow it down" in error.message and "--force" in error.message
        assert (await shard(front)).summary.startswith("1 stage:")
        assert len((await planned(front, stages=2, force=True)).stages) == 2


async def test_where_a_split_gains_too_little_the_model_stays_whole_and_says_why(front: Front) -> None:
    # Given two cores of one host that slow each other down, as they say in their leases
    async with open_offering(front.client, *two_cores(slower=1.8)):
        await nodes_are(front, "a", "b")
        # When nobody says how many stages there are to be
        reply = await shard(front, slots=8)
        # Then there is one, and everybody can read why
        assert reply.plan is not None and len(reply.plan.stages) == 1
        assert (
            "not split, as that gains too little: tokens/s at 1 / 2 / 4 / 8 streams: 2 sta" in reply.summary
        )
        summary = await pipeline(front)
        assert summary is not None and reply.summary in summary.why
        # So it is where a choir.toml has two of them, without force
        said: list[str] = []
        await place_when_possible(front.client, Shard(model=MODEL, stages=2), said.append)
        assert "would only slow it down" in said[0] and "1 stage: " in said[1] and "(as before)" in said[1]
        # And who wants two all the same has to force them, and is told what that costs
        error = await front.refused(subjects.SHARD, model=MODEL, stages=2, slots=8)
        assert "would only slow it down" in error.message
        forced = await shard(front, stages=2, slots=8, force=True)
        assert forced.plan is not None and len(forced.plan.stages) == 2
        assert "this only slows it down; tokens/s at 1 / 2 / 4 / 8 streams: 2 stages 43 / " in forced.summary


async def test_a_dead_node_that_nobody_replaced_is_replaced_by_the_router(
    front: Front, three: Offering
) -> None:
    # Given a pipeline, whose stages do nothing themselves when one of them leaves
    plan = await planned(front, stages=2)
    lost, kept = plan.stages[1].instance, plan.stages[0]
    # When that happens
    await three.leave(lost)
    # Then after the grace time the free node has its layers, in the next epoch
    new = await plan_changed(front, plan.epoch)
    assert new.epoch == plan.epoch + 1
    assert new.stages[0] == kept
    assert new.stages[1].instance not in (lost, kept.instance)
    assert f"takes the place of {lost}" in new.why


async def test_the_router_leaves_a_stage_to_the_standby_that_took_it(
    front: Front, three: Offering, connection: Client
) -> None:
    # Given a plan of which one instance leaves, and a standby that takes its place at once
    plan = await planned(front, stages=2)
    spare = ({"a", "b", "c"} - {stage.instance for stage in plan.stages}).pop()
    lost = plan.stages[1].instance
    by_standby = taken_over(plan, 1, spare)
    await write_plan(connection, by_standby)
    await three.leave(lost)
    await three.load_plan(by_standby)
    await nodes_are(front, "a", "b")
    # When the router has looked at it for longer than its grace time
    looked = asyncio.create_task(plan_changed(front, by_standby.epoch))
    done, _ = await asyncio.wait([looked], timeout=LONG_S)
    looked.cancel()
    # Then it has changed nothing
    assert not done
    assert await stored_plan(connection, MODEL) == by_standby


async def test_a_first_stage_whose_place_was_taken_serves_no_more(
    front: Front, three: Offering, connection: Client
) -> None:
    # Given a pipeline whose first stage is dead, although its lease has not run out yet
    plan = await planned(front, stages=2)
    await three.load_plan(plan)
    spare = ({"a", "b", "c"} - {stage.instance for stage in plan.stages}).pop()
    by_standby = taken_over(plan, 0, spare)
    await write_plan(connection, by_standby)
    await three.load_plan(by_standby)

    # Then the model is served by the one that took its place, and by nobody else
    async def agents() -> tuple[str, ...] | None:
        reply = ModelsReply.model_validate_json((await front.request(subjects.MODELS)).data)
        served = [model.agents for model in reply.models if model.name == MODEL]
        return served[0] if served and spare in served[0] else None

    assert await eventually(agents) == (spare,)


async def test_a_pipeline_that_no_node_can_mend_is_said_and_its_requests_end_in_an_error(
    front: Front,
) -> None:
    async with open_offering(front.client, *speeds(1.0, 1.0, memory_bytes=HALF_BYTES)) as two:
        await nodes_are(front, "a", "b")
        plan = await planned(front, stages=2)
        # While it loads, requests are accepted and wait
        accepted = await front.request(subjects.SUBMIT, prompt="Hi", model=MODEL, request_id="early")
        assert subjects.ERROR_CODE_HEADER not in (accepted.headers or {})
        # When a node leaves that nobody can replace
        lost = plan.stages[1].instance
        await two.leave(lost)

        async def told() -> tuple[str, ...]:
            return StatusReply.model_validate_json((await front.request(subjects.STATUS)).data).problems

        problem = " ".join(await eventually(told))
        assert f"has no node for stage 1 (layers 6 to 11, on {lost})" in problem
        summary = await pipeline(front)
        assert summary is not None and summary.state == "broken"
        assert summary.problem is not None and "does not fit" in summary.problem
        assert f"choir shard {MODEL} --remove" in problem
        # Then a new request is refused with the reason, and one that was accepted is still that request
        error = await front.refused(subjects.ASK, prompt="Hi", model=MODEL)
        assert error.code == "model_unusable" and "has no node for stage 1" in error.message
        again = await front.request(subjects.SUBMIT, prompt="Hi", model=MODEL, request_id="early")
        assert subjects.ERROR_CODE_HEADER not in (again.headers or {})
        # And when the node comes back, the plan is as it was and nothing is wrong
        await two.join(offered(lost, memory_bytes=HALF_BYTES))

        async def fine() -> bool:
            now = await pipeline(front)
            return now is not None and now.state == "loading" and now.problem is None

        await eventually(fine)
        assert await stored_plan(front.client, MODEL) == plan


async def test_a_fast_node_that_joins_is_taken_when_nothing_runs(front: Front) -> None:
    async with open_offering(front.client, *speeds(1.0, 1.0)) as two:
        await nodes_are(front, "a", "b")
        plan = await planned(front, stages=2)
        # Given a pipeline that works on a sequence
        await two.load_plan(plan, busy=1)

        async def busy() -> bool:
            status = StatusReply.model_validate_json((await front.request(subjects.STATUS)).data)
            return status.pipelines == {MODEL: "ready"}

        await eventually(busy)
        # When a much faster node joins
        await two.join(offered("fast", shardable(layer_ms=0.1)))
        looked = asyncio.create_task(plan_changed(front, plan.epoch))
        done, _ = await asyncio.wait([looked], timeout=LONG_S)
        # Then the plan stays for as long as the sequence runs, and then the node is taken
        assert not done
        await two.load_plan(plan, busy=0)
        new = await looked
        assert "fast" in {stage.instance for stage in new.stages}
        assert "a better split" in new.why


async def test_of_two_routers_one_changes_the_plan(
    front: Front, three: Offering, connection: Client, mesh_url: str
) -> None:
    async with open_front(connection, mesh_url, **QUICK):
        plan = await planned(front, stages=2)
        await three.leave(plan.stages[0].instance)
        new = await plan_changed(front, plan.epoch)
        assert new.epoch == plan.epoch + 1
