"""The plans of pipelines: read from their bucket as they change, and changed by compare-and-set."""

from __future__ import annotations

import time
from collections.abc import Callable

import nats.errors
import nats.js.errors
from nats.aio.client import Client
from nats.js import JetStreamContext
from nats.js.errors import KeyNotFoundError, KeyWrongLastSequenceError
from pydantic import ValidationError

from schemas import subjects
from schemas.pipelines import PipelinePlan
from services.chassis.identity import Identity
from services.chassis.logs import get_logger
from services.chassis.nats.bucket import Bucket, messages

TIMEOUT_S = 2.0

log = get_logger("shard_stage.plan_book")


class PlanStore:
    """All plans. `on_plan(model, plan)` is called for every change, with None when a plan is gone."""

    def __init__(
        self, client: Client, identity: Identity, on_plan: Callable[[str, PipelinePlan | None], None]
    ) -> None:
        self._js = JetStreamContext(client, timeout=TIMEOUT_S)
        self._identity = identity
        self._on_plan = on_plan
        self._keys: dict[str, str] = {}
        self._bucket = Bucket(
            client, subjects.PIPELINES_BUCKET, messages(PipelinePlan), self._take, self._drop
        )

    async def start(self) -> None:
        """Returns when the plans of now are known."""
        await self._bucket.watch()

    async def reload(self) -> None:
        """Reads all plans again."""
        await self._bucket.reload()

    def _take(self, key: str, plan: PipelinePlan) -> None:
        self._keys[key] = plan.model
        self._on_plan(plan.model, plan)

    def _drop(self, key: str) -> None:
        model = self._keys.pop(key, None)
        if model is not None:
            self._on_plan(model, None)

    async def take_over(self, plan: PipelinePlan, stage: int) -> bool:
        """Puts this instance in the place of another, if the plan is still this one; whether that was so."""
        stages = list(plan.stages)
        gone = stages[stage].instance
        me = {"instance": self._identity.instance, "host": self._identity.host}
        stages[stage] = stages[stage].model_copy(update=me)
        why = f"stage {stage} was taken over from {gone}, which fell silent"
        return await self._replace(plan, tuple(stages), why)

    async def begin_anew(self, plan: PipelinePlan, why: str) -> bool:
        """The same plan with the next epoch, if it is still this one: all stages agree on where they are."""
        return await self._replace(plan, plan.stages, why)

    async def _replace(self, plan: PipelinePlan, stages: tuple[object, ...], why: str) -> bool:
        update = {
            "stages": stages,
            "epoch": plan.epoch + 1,
            "since_epoch": plan.since_epoch or plan.epoch,
            "made_by": self._identity.instance,
            "made_at_s": time.time(),
            "why": why,
        }
        try:
            bucket = await self._js.key_value(subjects.PIPELINES_BUCKET)
            entry = await bucket.get(subjects.pipeline_key(plan.model))
            if entry.value is None or not plan.same_epoch(PipelinePlan.read(entry.value)):
                return False
            new = plan.model_copy(update=update).to_bytes()
            await bucket.update(subjects.pipeline_key(plan.model), new, last=entry.revision)
        except (KeyNotFoundError, KeyWrongLastSequenceError, ValidationError):
            return False
        except (nats.errors.Error, nats.js.errors.Error) as error:
            log.warning("the plan could not be changed", model=plan.model, why=str(error) or repr(error))
            return False
        log.warning("the pipeline goes on in a new epoch", model=plan.model, epoch=plan.epoch + 1, why=why)
        return True
