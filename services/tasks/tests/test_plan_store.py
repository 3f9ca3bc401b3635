"""The plans of pipelines, as routers and stages follow and change them."""

from __future__ import annotations

import pytest
from nats.aio.client import Client

from infra.testing.broker.cable import mesh_on_a_cable
from infra.testing.broker.lost_words import LostWords
from infra.testing.mesh import eventually
from schemas import subjects
from schemas.errors import BrokerUnavailable
from schemas.pipelines.plan import PipelinePlan
from schemas.tests.golden.shared import PLAN
from services.chassis.identity import Identity
from services.tasks.plan_store import PlanStore


async def test_a_pipeline_that_was_removed_while_an_instance_was_cut_off_is_gone_there_too(
    connection: Client, mesh_url: str
) -> None:
    bucket = await connection.jetstream().key_value(subjects.PIPELINES_BUCKET)
    await bucket.put(subjects.pipeline_key(PLAN.model), PLAN.to_bytes())
    told: list[tuple[str, PipelinePlan | None]] = []
    async with mesh_on_a_cable(mesh_url, "shard_stage") as (mesh, way):
        plans = PlanStore(mesh.client, mesh.identity, lambda model, plan: told.append((model, plan)))
        mesh.connection.on_reconnect(plans.reload)
        await plans.start()
        assert told == [(PLAN.model, PLAN)]
        assert plans.of(PLAN.model) == PLAN
        await way.cut_from(mesh)
        await bucket.delete(subjects.pipeline_key(PLAN.model))
        await way.mend()
        await eventually(lambda: told[-1] == (PLAN.model, None))
        assert plans.of(PLAN.model) is None


@pytest.fixture
async def plans(connection: Client) -> PlanStore:
    plans = PlanStore(connection, Identity.of("shard_stage", "standby"), lambda _model, _plan: None)
    await plans.start()
    return plans


async def store(connection: Client, plan: PipelinePlan) -> None:
    bucket = await connection.jetstream().key_value(subjects.PIPELINES_BUCKET)
    await bucket.put(subjects.pipeline_key(plan.model), plan.to_bytes())


async def stored(connection: Client) -> PipelinePlan:
    bucket = await connection.jetstream().key_value(subjects.PIPELINES_BUCKET)
    entry = await bucket.get(subjects.pipeline_key(PLAN.model))
    return PipelinePlan.model_validate_json(entry.value or b"")


async def test_a_stage_takes_the_place_of_another_in_the_next_epoch(
    plans: PlanStore, connection: Client
) -> None:
    await store(connection, PLAN)
    assert await plans.take_over(PLAN, 1)
    now = await stored(connection)
    assert (now.epoch, now.stages[1].instance) == (PLAN.epoch + 1, "standby")
    # And a move of the cut that was under way is called off, for it was not measured with this instance
    assert PLAN.moving is not None and (now.moving, now.moved) == (None, PLAN.moved)


async def test_of_two_who_take_over_one_does(plans: PlanStore, connection: Client) -> None:
    await store(connection, PLAN)
    assert await plans.begin_anew(PLAN, "a test")
    assert not await plans.take_over(PLAN, 1)


async def test_a_pipeline_that_was_removed_and_placed_anew_is_another_one(
    plans: PlanStore, connection: Client
) -> None:
    """Its epochs begin with 1 again: whoever missed the change must not bring the old plan back."""
    anew = PLAN.model_copy(update={"number": PLAN.number + 1, "slots": 3})
    await store(connection, anew)
    assert not await plans.begin_anew(PLAN, "a test")
    assert await stored(connection) == anew


def in_epoch(epoch: int, **more: object) -> PipelinePlan:
    return PLAN.model_copy(update={"epoch": epoch, **more})


async def test_a_pipeline_begins_with_its_first_epoch_and_goes_on_with_the_next(plans: PlanStore) -> None:
    assert not await plans.write(in_epoch(2))
    assert await plans.write(in_epoch(1))
    assert not await plans.write(in_epoch(1))
    assert not await plans.write(in_epoch(3))
    assert await plans.write(in_epoch(2))
    assert plans.all == (in_epoch(2),)


async def test_a_plan_of_a_pipeline_that_was_placed_anew_is_not_overwritten(
    plans: PlanStore, connection: Client
) -> None:
    """Who missed that has the old one, of another number, and an epoch that would fit."""
    anew = in_epoch(1, number=PLAN.number + 1)
    await store(connection, anew)
    assert not await plans.write(in_epoch(2))
    assert plans.of(PLAN.model) == anew


async def test_a_plan_that_somebody_has_changed_is_not_removed(plans: PlanStore, connection: Client) -> None:
    assert await plans.write(in_epoch(1))
    await store(connection, in_epoch(2))
    assert not await plans.remove(in_epoch(1))
    assert await plans.remove(in_epoch(2))
    assert plans.all == ()


async def test_a_plan_whose_word_was_lost_is_written_once_and_known(
    plans: PlanStore, connection: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = LostWords(monkeypatch, subjects.PIPELINES_BUCKET, 1)
    assert await plans.write(in_epoch(1))
    assert (words.lost, await stored(connection)) == (1, in_epoch(1))


async def test_a_broker_that_stores_no_plan_is_said_so_and_a_stage_tries_again_later(
    plans: PlanStore, connection: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    await store(connection, PLAN)
    LostWords(monkeypatch, subjects.PIPELINES_BUCKET, 1000, stored=False)
    assert not await plans.take_over(PLAN, 1)
    with pytest.raises(BrokerUnavailable, match=f"the plan of {PLAN.model} could not be stored"):
        await plans.write(in_epoch(PLAN.epoch + 1))


async def test_a_plan_that_nobody_here_can_read_is_left_alone(plans: PlanStore, connection: Client) -> None:
    """A newer version may have written it."""
    assert await plans.write(in_epoch(1))
    bucket = await connection.jetstream().key_value(subjects.PIPELINES_BUCKET)
    await bucket.put(subjects.pipeline_key(PLAN.model), b"{}")
    assert not await plans.write(in_epoch(2))
    assert not await plans.remove(in_epoch(1))
