"""The plans of pipelines, as a stage service follows them."""

from __future__ import annotations

from nats.aio.client import Client

from schemas import subjects
from schemas.golden.samples import PLAN
from schemas.pipelines import PipelinePlan
from services.chassis.tests.cable import mesh_on_a_cable
from services.chassis.tests.mesh import eventually
from services.shard_stage.plan_book import PlanBook


async def test_a_pipeline_that_was_removed_while_a_stage_was_cut_off_is_gone_there_too(
    connection: Client, mesh_url: str
) -> None:
    bucket = await connection.jetstream().key_value(subjects.PIPELINES_BUCKET)
    await bucket.put(subjects.pipeline_key(PLAN.model), PLAN.to_bytes())
    told: list[tuple[str, PipelinePlan | None]] = []
    async with mesh_on_a_cable(mesh_url, "shard_stage") as (mesh, way):
        book = PlanBook(mesh.client, mesh.identity, lambda model, plan: told.append((model, plan)))
        mesh.connection.on_reconnect(book.reload)
        await book.start()
        assert told == [(PLAN.model, PLAN)]
        await way.cut_from(mesh)
        await bucket.delete(subjects.pipeline_key(PLAN.model))
        await way.mend()
        await eventually(lambda: told[-1] == (PLAN.model, None))
