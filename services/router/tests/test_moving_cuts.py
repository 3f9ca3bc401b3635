"""The router moves the cut of a pipeline as its stages measure: announced, made when all are ready.

The stages are leases on a real broker: no process is behind them.
"""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio
from nats.aio.client import Client

from schemas import subjects
from schemas.events import ANY_EVENT, CutMoved
from schemas.pipelines.plan import PipelinePlan
from services.router.placement.tests.offering import LAYERS, shardable
from services.router.tests.front import Front, open_front
from services.router.tests.offering import Offering, offered, open_offering
from services.router.tests.test_shard import QUICK, nodes_are, pipeline, plan_changed, planned

SOON = QUICK | {"pipeline_rebalance_window_s": 0.1, "pipeline_rebalance_rest_s": 0.0}


@pytest_asyncio.fixture
async def front(connection: Client, mesh_url: str) -> AsyncIterator[Front]:
    async with open_front(connection, mesh_url, **SOON) as opened:
        yield opened


@pytest_asyncio.fixture
async def two(front: Front) -> AsyncIterator[Offering]:
    """Two nodes, of which one has measured half the speed of the other when it was started."""
    slow = offered("b", shardable(layer_ms=2.0, last_ms=0.0))
    async with open_offering(
        front.client, offered("a", shardable(layer_ms=1.0, last_ms=0.0)), slow
    ) as offering:
        await nodes_are(front, "a", "b")
        yield offering


async def announced(front: Front, two: Offering) -> PipelinePlan:
    """The plan with its next cut: at work both nodes are equally fast."""
    plan = await planned(front, assign=["a", "b"], force=True)
    assert [stage.end_layer for stage in plan.stages] == [8, LAYERS]
    await two.load_plan(plan, busy=8, layer_ms=1.0)
    return await plan_changed(front, plan.epoch)


async def test_a_cut_is_moved_when_all_stages_are_ready_for_it_and_that_is_told(
    front: Front, two: Offering
) -> None:
    told = await front.client.subscribe(subjects.event("router", "cut_moved"))
    # Given stages that are told to make ready
    plan = await announced(front, two)
    assert plan.moving is not None and plan.moving.ends == (6, LAYERS)
    assert (plan.epoch, plan.since_epoch, plan.ends) == (2, 1, (8, LAYERS))
    summary = await pipeline(front)
    assert summary is not None and summary.moving == plan.moving
    # When they are
    await two.load_plan(plan, busy=8, layer_ms=1.0, prepared=True)
    moved = await plan_changed(front, plan.epoch)
    # Then the cut is another one, and texts are computed again
    assert (moved.epoch, moved.since_epoch, moved.ends, moved.moving) == (3, None, (6, LAYERS), None)
    assert moved.moved is not None and (moved.moved.ends_before, moved.moved.moves) == ((8, LAYERS), 1)
    event = ANY_EVENT.validate_json((await told.next_msg(180)).data)
    assert isinstance(event, CutMoved) and event.layers == (6, 6) and event.epoch == 3
    # And what the move was to cost is told: the interruption, and texts that are read again
    assert event.live_tokens == 1_000
    assert event.lost_s == pytest.approx(3.0 + 1_000 * 0.5 * 6 / 1e3)
    assert event.gained_s is not None and event.gained_s > 6.0
    # And the same wish again, which was planned by what was measured at the start, moves nothing back
    assert await planned(front, assign=["a", "b"], force=True) == moved


async def test_a_move_for_which_the_stages_do_not_get_ready_is_called_off(
    front: Front, two: Offering, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = await announced(front, two)
    monkeypatch.setattr("services.router.placement.cuts.rebalancer.PREPARING_S", 0.0)
    off = await plan_changed(front, plan.epoch)
    assert (off.moving, off.moved, off.ends) == (None, None, plan.ends)
