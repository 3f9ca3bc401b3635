"""The plans of pipelines, as a stage service follows and changes them."""

from __future__ import annotations

import pytest
from nats.aio.client import Client

from schemas import subjects
from schemas.golden.samples import PLAN
from schemas.pipelines import PipelinePlan
from services.chassis.identity import Identity
from services.chassis.tests.cable import mesh_on_a_cable
from services.chassis.tests.mesh import eventually
from services.shard_stage.plan_store import PlanStore


async def test_a_pipeline_that_was_removed_while_a_stage_was_cut_off_is_gone_there_too(
    connection: Client, mesh_url: str
) -> None:
    bucket = await connection.jetstream().key_value(subjects.PIPELINES_BUCKET)
    await bucket.put(subjects.pipeline_key(PLAN.model), PLAN.to_bytes())
    told: list[tuple[str, PipelinePlan | None]] = []
    async with mesh_on_a_cable(mesh_url, "shard_stage") as (mesh, way):
        book = PlanStore(mesh.client, mesh.identity, lambda model, plan: told.append((model, plan)))
        mesh.connection.on_reconnect(book.reload)
        await book.start()
        assert told == [(PLAN.model, PLAN)]
        await way.cut_from(mesh)
        await bucket.delete(subjects.pipeline_key(PLAN.model))
        await way.mend()
        await eventually(lambda: told[-1] == (PLAN.model, None))


@pytest.fixture
async def book(connection: Client) -> PlanStore:
    book = PlanStore(connection, Identity.of("shard_stage", "standby"), lambda _model, _plan: None)
    await book.start()
    return book


async def store(connection: Client, plan: PipelinePlan) -> None:
    bucket = await connection.jetstream().key_value(subjects.PIPELINES_BUCKET)
    await bucket.put(subjects.pipeline_key(plan.model), plan.to_bytes())


async def stored(connection: Client) -> PipelinePlan:
    bucket = await connection.jetstream().key_value(subjects.PIPELINES_BUCKET)
    entry = await bucket.get(subjects.pipeline_key(PLAN.model))
    return PipelinePlan.model_validate_json(entry.value or b"")


async def test_a_stage_takes_the_place_of_another_in_the_next_epoch(
    book: PlanStore, connection: Client
) -> None:
    await store(connection, PLAN)
    assert await book.take_over(PLAN, 1)
    now = await stored(connection)
    assert (now.epoch, now.stages[1].instance) == (PLAN.epoch + 1, "standby")


async def test_of_two_who_take_over_one_does(book: PlanStore, connection: Client) -> None:
    await store(connection, PLAN)
    assert await book.begin_anew(PLAN, "a test")
    assert not await book.take_over(PLAN, 1)


async def test_a_pipeline_that_was_removed_and_placed_anew_is_another_one(
    book: PlanStore, connection: Client
) -> None:
    """Its epochs begin with 1 again: whoever missed the change must not bring the old plan back."""
    anew = PLAN.model_copy(update={"number": PLAN.number + 1, "slots": 3})
    await store(connection, anew)
    assert not await book.begin_anew(PLAN, "a test")
    assert await stored(connection) == anew
