"""Places in a plan: who holds one, as its lease says, and what a standby that has just come makes of it."""

from __future__ import annotations

from pathlib import Path

import pytest
from nats.aio.client import Client

from infra.demo_models.family import FOLDER
from infra.testing.mesh import open_mesh
from schemas import subjects
from schemas.nodes.lease import NodeLease
from schemas.pipelines.plan import StageHeld, StageOffer
from services.chassis.nats.bucket import Bucket, messages
from services.shard_stage.failure_detector import SILENCE_S, TICK_S, FailureDetector
from services.shard_stage.handover.assignment import holds_place
from services.shard_stage.service import Pipeline, ShardStage
from services.shard_stage.settings import StageModelSection, StageSection, StageSettings
from services.shard_stage.tests.helpers.line import plan_of

PLAN = plan_of(FOLDER / "choir-llama.gguf", 2, epoch=5, since_epoch=3)


def lease(**held: object) -> NodeLease:
    """Of the instance of stage 1, which is in its place."""
    spec = PLAN.stages[1]
    fields = {
        "model": PLAN.model, "epoch": PLAN.epoch, "stage": 1, "first_layer": spec.first_layer,
        "end_layer": spec.end_layer, "ready": True,
    }  # fmt: skip
    offer = StageOffer(
        models=(), memory_bytes=1, threads=1, hop_ms=0.1, held=StageHeld.model_validate(fields | held)
    )
    return NodeLease(
        service="shard_stage", instance=spec.instance, host="here", pid=1, version="0", state="ready",
        started_at_s=0, seen_at_s=0, stage=offer,
    )  # fmt: skip


def test_whoever_was_ready_with_these_layers_of_this_plan_holds_its_place() -> None:
    assert holds_place(lease(), PLAN, 1) and holds_place(lease(epoch=3), PLAN, 1)


@pytest.mark.parametrize(
    "held",
    [{"ready": False}, {"model": "beta"}, {"stage": 0}, {"end_layer": 99}, {"epoch": 2}, {"epoch": 6}],
)
def test_whoever_held_something_else_or_was_not_ready_may_still_be_on_its_way(
    held: dict[str, object],
) -> None:
    assert not holds_place(lease(**held), PLAN, 1)


async def test_a_standby_that_comes_when_a_stage_has_just_died_misses_it_as_soon_as_any_other(
    connection: Client, tmp_path: Path
) -> None:
    # Given a stage that was ready and is dead, its lease not yet over, and one that has not begun
    leases = Bucket(connection, subjects.NODES_BUCKET, messages(NodeLease))
    await leases.put(subjects.node_key("shard_stage", PLAN.stages[1].instance), lease())
    model = StageModelSection(name=PLAN.model, path=FOLDER / "choir-llama.gguf")
    standby = ShardStage(StageSettings(stage=StageSection(name="standby", models=(model,), cache=tmp_path)))
    standby._mesh = open_mesh(connection, "shard_stage", "standby")
    detector = FailureDetector(PLAN, 0.0)
    standby._pipelines[PLAN.model] = Pipeline(detector)
    # When another instance comes
    await standby._learn_who_works()
    # Then the dead one is missed after the usual silence, and the other has its time
    looks = [detector.silent(look * TICK_S) for look in range(1, int(SILENCE_S / TICK_S) + 3)]
    assert looks[0] == () and looks[-1] == (1,)
