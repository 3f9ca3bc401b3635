"""Stage services that only say that they are there: leases on a real broker, with no process behind."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from functools import partial

from nats.aio.client import Client
from nats.js.errors import KeyNotFoundError

from schemas import subjects
from schemas.nodes.lease import NodeLease, ServedModel
from schemas.pipelines.plan import PipelinePlan, StageHeld, StepTimes
from services.chassis.identity import Identity
from services.chassis.registry.lease import Lease, Load
from services.router.placement.tests.offering import lease as offered

Offered = NodeLease


class Offering:
    """Instances that hold what the plan in the bucket says, as soon as they are told to look."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._leases: dict[str, Lease] = {}
        self._loads: dict[str, Load] = {}

    async def join(self, *leases: Offered) -> None:
        """These instances say that they are there."""
        for lease in leases:
            identity = Identity("shard_stage", lease.instance, host=lease.host, version=lease.version)
            self._loads[lease.instance] = Load(stage=lease.stage)
            kept = Lease(self._client, identity, partial(self._loads.__getitem__, lease.instance))
            self._leases[lease.instance] = kept
            await kept.start()

    async def leave(self, instance: str) -> None:
        """An instance gives its lease back."""
        await self._leases.pop(instance).stop()

    async def load_plan(
        self, plan: PipelinePlan, busy: int = 0, layer_ms: float = 0.0, *, prepared: bool = False
    ) -> None:
        """All instances of a plan say that they hold their stage; the first, that the model can be asked. At
        work their layers take `layer_ms`; `prepared` are they for the next cut, if there is to be one."""
        for number, stage in enumerate(plan.stages):
            step_ms = layer_ms * (stage.end_layer - stage.first_layer)
            times = (StepTimes(rows=1, steps=100, median_ms=step_ms, spread=0.1),) if layer_ms else ()
            following = plan.moving.slice_of(number) if plan.moving is not None and prepared else None
            held = StageHeld(
                model=plan.model, epoch=plan.epoch, stage=number,
                first_layer=stage.first_layer, end_layer=stage.end_layer, ready=True, step_ms=1.5,
                times=times, prepared=following,
                prompt_token_ms=0.5 * (stage.end_layer - stage.first_layer),
                live_tokens=0 if number else 1_000,
            )  # fmt: skip
            load = self._loads[stage.instance]
            assert load.stage is not None
            served = ServedModel(name=plan.model, backend="pipeline", slots=8, busy=busy, tokens_per_s=40.0)
            self._loads[stage.instance] = replace(
                load,
                stage=load.stage.model_copy(update={"held": held}),
                models=(served,) if number == 0 else (),
            )
            self._leases[stage.instance].renew_soon()

    async def close(self) -> None:
        """All leave."""
        for instance in list(self._leases):
            await self.leave(instance)


@asynccontextmanager
async def open_offering(client: Client, *leases: Offered) -> AsyncIterator[Offering]:
    """Instances that are there for a test."""
    offering = Offering(client)
    await offering.join(*leases)
    try:
        yield offering
    finally:
        await offering.close()


async def stored_plan(client: Client, model: str) -> PipelinePlan | None:
    """The plan in the bucket."""
    bucket = await client.jetstream().key_value(subjects.PIPELINES_BUCKET)
    try:
        entry = await bucket.get(subjects.pipeline_key(model))
    except KeyNotFoundError:
        return None
    return PipelinePlan.model_validate_json(entry.value or b"")


async def write_plan(client: Client, plan: PipelinePlan) -> None:
    """What a standby does when it takes over: the next epoch, by compare-and-set."""
    bucket = await client.jetstream().key_value(subjects.PIPELINES_BUCKET)
    entry = await bucket.get(subjects.pipeline_key(plan.model))
    assert PipelinePlan.model_validate_json(entry.value or b"").epoch == plan.epoch - 1
    await bucket.update(subjects.pipeline_key(plan.model), plan.to_bytes(), last=entry.revision)


def taken_over(plan: PipelinePlan, stage: int, instance: str) -> PipelinePlan:
    """The plan after a standby has taken a stage's place."""
    stages = list(plan.stages)
    stages[stage] = stages[stage].model_copy(update={"instance": instance})
    return plan.model_copy(
        update={
            "stages": tuple(stages),
            "epoch": plan.epoch + 1,
            "made_by": instance,
            "made_at_s": time.time(),
        }
    )


__all__ = ["Offering", "offered", "open_offering", "stored_plan", "taken_over", "write_plan"]
