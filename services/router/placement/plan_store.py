"""The plans of all pipelines: a live copy of their bucket, changed by compare-and-set alone."""

from __future__ import annotations

import nats.errors
import nats.js.errors
from nats.aio.client import Client
from nats.js import JetStreamContext
from nats.js.kv import KeyValue
from pydantic import ValidationError

from schemas import subjects
from schemas.errors import BrokerUnavailable
from schemas.pipelines import PipelinePlan
from services.chassis.logs import get_logger
from services.chassis.nats.bucket import Bucket, messages

TIMEOUT_S = 2.0
RETRY_AFTER_S = 1.0

log = get_logger("router.plans")


class PlanStore:
    """What every model's pipeline is at present."""

    def __init__(self, client: Client) -> None:
        self._js = JetStreamContext(client, timeout=TIMEOUT_S)
        self._watched = Bucket(
            client, subjects.PIPELINES_BUCKET, messages(PipelinePlan), self._take, self._drop
        )
        self._known: dict[str, PipelinePlan] = {}
        self._kv: KeyValue | None = None

    async def start(self) -> None:
        """Returns when the plans of now are known."""
        await self._watched.watch()

    async def reload(self) -> None:
        """Reads all plans again; those that have been removed meanwhile are forgotten."""
        await self._watched.reload()

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

        False if somebody else was quicker: the copy here is up to date then. Raises BrokerUnavailable.
        """
        key = subjects.pipeline_key(plan.model)
        try:
            revision, stored = await self._stored(key)
            if plan.epoch != (stored.epoch + 1 if stored else 1):
                return False
            if stored is not None and plan.number != stored.number:
                return False
            if stored is None:
                await (await self._bucket()).create(key, plan.to_bytes())
            else:
                await (await self._bucket()).update(key, plan.to_bytes(), last=revision)
        except nats.js.errors.KeyWrongLastSequenceError:
            await self._stored(key)
            return False
        except (nats.errors.Error, nats.js.errors.Error) as error:
            raise _unavailable(plan.model, error) from error
        self._known[key] = plan
        return True

    async def remove(self, plan: PipelinePlan) -> bool:
        """Ends a pipeline; False if somebody else has changed its plan. Raises BrokerUnavailable."""
        key = subjects.pipeline_key(plan.model)
        try:
            revision, stored = await self._stored(key)
            if stored != plan:
                return False
            await (await self._bucket()).delete(key, last=revision)
        except nats.js.errors.KeyWrongLastSequenceError:
            return False
        except (nats.errors.Error, nats.js.errors.Error) as error:
            raise _unavailable(plan.model, error) from error
        self._drop(key)
        return True

    async def _stored(self, key: str) -> tuple[int, PipelinePlan | None]:
        """The revision of a model's plan and the plan, as the broker has them; the copy here follows."""
        try:
            entry = await (await self._bucket()).get(key)
        except nats.js.errors.KeyNotFoundError:
            self._drop(key)
            return 0, None
        try:
            self._take(key, PipelinePlan.read(entry.value or b""))
        except ValidationError as error:
            log.warning("unreadable plan", key=key, faults=error.error_count())
        return entry.revision or 0, self._known.get(key)

    async def _bucket(self) -> KeyValue:
        if self._kv is None:
            self._kv = await self._js.key_value(subjects.PIPELINES_BUCKET)
        return self._kv

    def _take(self, key: str, plan: PipelinePlan) -> None:
        self._known[key] = plan

    def _drop(self, key: str) -> None:
        self._known.pop(key, None)


def _unavailable(model: str, error: Exception) -> BrokerUnavailable:
    why = str(error) or type(error).__name__
    return BrokerUnavailable(f"the plan of {model} could not be stored: {why}", retry_after_s=RETRY_AFTER_S)
