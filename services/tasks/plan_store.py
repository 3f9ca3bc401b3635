"""The plans of pipelines, for routers and stages: a live copy, changed by compare-and-set alone."""

from __future__ import annotations

import time
from collections.abc import Callable

from nats.aio.client import Client
from pydantic import ValidationError

from schemas import subjects
from schemas.errors import BrokerUnavailable, ChoirError
from schemas.pipelines.plan import PipelinePlan, StagePlan
from services.chassis.identity import Identity
from services.chassis.logs import get_logger
from services.chassis.nats.bucket import Bucket, Entry, WrongRevision, messages

RETRY_AFTER_S = 1.0

log = get_logger("tasks.plans")


class PlanStore:
    """The plan of every model's pipeline. `on_plan(model, plan)` is called for every change, with None
    when a plan is gone. Plans are written by `now`, the time by which the services of a mesh agree."""

    def __init__(
        self,
        client: Client,
        identity: Identity,
        on_plan: Callable[[str, PipelinePlan | None], None] = lambda _model, _plan: None,
        now: Callable[[], float] = time.time,
    ) -> None:
        self.now = now
        self._identity = identity
        self._on_plan = on_plan
        self._known: dict[str, PipelinePlan] = {}
        self._models: dict[str, str] = {}
        self._bucket = Bucket(
            client, subjects.PIPELINES_BUCKET, messages(PipelinePlan), self._take, self._drop
        )

    async def start(self) -> None:
        """Returns when the plans of now are known."""
        await self._bucket.watch()

    async def reload(self) -> None:
        """Reads all plans again; those that have been removed meanwhile are forgotten."""
        await self._bucket.reload()

    @property
    def all(self) -> tuple[PipelinePlan, ...]:
        """Every plan, in the order of the models' names."""
        return tuple(sorted(self._known.values(), key=lambda plan: plan.model))

    def of(self, model: str) -> PipelinePlan | None:
        """A model's plan."""
        return self._known.get(subjects.pipeline_key(model))

    async def write(self, plan: PipelinePlan) -> bool:
        """Stores a plan if the stored one is its pipeline's in the epoch before it, or there is none and it
        is the first.

        A model that is placed anew begins again with epoch 1, so the pipeline's number is compared too.
        False if somebody else was quicker, or what is stored cannot be read: the copy here is up to date
        then. Raises BrokerUnavailable.
        """
        key = subjects.pipeline_key(plan.model)
        try:
            entry = await self._stored(key)
            if entry is None or not _follows(plan, entry.value):
                return False
            await self._bucket.update(key, plan, entry.revision)
        except WrongRevision:
            await self._stored(key)
            return False
        except ChoirError as error:
            raise _unavailable(plan, error) from error
        self._known[key] = plan
        return True

    async def remove(self, plan: PipelinePlan) -> bool:
        """Ends a pipeline; False if somebody else has changed its plan. Raises BrokerUnavailable."""
        key = subjects.pipeline_key(plan.model)
        try:
            entry = await self._stored(key)
            if entry is None or entry.value != plan:
                return False
            await self._bucket.delete(key, entry.revision)
        except WrongRevision:
            return False
        except ChoirError as error:
            raise _unavailable(plan, error) from error
        self._known.pop(key, None)
        return True

    async def take_over(self, plan: PipelinePlan, stage: int) -> bool:
        """Puts this instance in the place of another, if the plan is still this one; whether that was so."""
        stages = list(plan.stages)
        gone = stages[stage].instance
        me = {"instance": self._identity.instance, "host": self._identity.host}
        stages[stage] = stages[stage].model_copy(update=me)
        why = f"stage {stage} was taken over from {gone}, which fell silent"
        without_move = plan.model_copy(
            update={"moving": None}
        )  # that was for what the other one had measured
        return await self._begin_epoch(without_move, tuple(stages), why)

    async def begin_anew(self, plan: PipelinePlan, why: str) -> bool:
        """The same plan with the next epoch, if it is still this one: all stages agree on where they are."""
        return await self._begin_epoch(plan, plan.stages, why)

    async def _begin_epoch(self, plan: PipelinePlan, stages: tuple[StagePlan, ...], why: str) -> bool:
        update = {
            "stages": stages,
            "epoch": plan.epoch + 1,
            "since_epoch": plan.since_epoch or plan.epoch,
            "made_by": self._identity.instance,
            "made_at_s": self.now(),
            "why": why,
        }
        try:
            if not await self.write(plan.model_copy(update=update)):
                return False
        except BrokerUnavailable as error:
            log.warning("the plan could not be changed", model=plan.model, why=error.message)
            return False
        log.warning("the pipeline goes on in a new epoch", model=plan.model, epoch=plan.epoch + 1, why=why)
        return True

    async def _stored(self, key: str) -> Entry[PipelinePlan] | None:
        """A model's plan as the broker has it, None if it cannot be read; the copy here follows."""
        try:
            entry = await self._bucket.get(key)
        except ValidationError as error:
            log.error("a stored plan cannot be read", key=key, faults=error.error_count())
            return None
        if entry.value is None:
            self._known.pop(key, None)
        else:
            self._known[key] = entry.value
        return entry

    def _take(self, key: str, plan: PipelinePlan) -> None:
        self._known[key] = plan
        self._models[key] = plan.model
        self._on_plan(plan.model, plan)

    def _drop(self, key: str) -> None:
        self._known.pop(key, None)
        model = self._models.pop(key, None)
        if model is not None:
            self._on_plan(model, None)


def _follows(plan: PipelinePlan, stored: PipelinePlan | None) -> bool:
    """Whether a plan is the next epoch of the stored one's pipeline, or the first of a model without one."""
    if stored is None:
        return plan.epoch == 1
    return (plan.number, plan.epoch) == (stored.number, stored.epoch + 1)


def _unavailable(plan: PipelinePlan, error: ChoirError) -> BrokerUnavailable:
    return BrokerUnavailable(
        f"the plan of {plan.model} could not be stored: {error.message}", retry_after_s=RETRY_AFTER_S
    )
