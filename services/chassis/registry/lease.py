"""The lease of an instance: put into its bucket again and again, and gone when the instance is."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field

from nats.aio.client import Client

from schemas import subjects
from schemas.broker.catalog import LEASE_TTL_S
from schemas.errors import ChoirError, ErrorBody
from schemas.nodes.lease import LoadingOffer, NodeLease, NodeState, ServedModel, StoreOffer, TenantLoad
from schemas.pipelines.plan import StageOffer
from services.chassis.identity import Identity
from services.chassis.logs import get_logger
from services.chassis.nats.bucket import Bucket, messages
from services.chassis.nats.clock import BrokerClock
from services.chassis.nats.connection import ENVELOPE_BYTES
from services.chassis.process.supervise import Loops
from services.chassis.registry.lease_size import LEASE_BYTES, fitting
from services.chassis.registry.machine import Machine

RENEW_INTERVAL_S = LEASE_TTL_S / 4
AGAIN_AFTER_S = RENEW_INTERVAL_S / 8
"""After a renewal that failed: it has taken as long as the broker was given for its answer."""

FULL = "there is no room for more leases: run fewer instances, or fewer models in each"

log = get_logger("chassis.lease")


@dataclass(frozen=True)
class Load:
    """What a service says of its work. `queued` are the commands of the whole mesh, if it knows them. One
    that `rests` has a cordon around it, and takes nothing new."""

    state: NodeState = "ready"
    slots: int = 0
    busy: int = 0
    queued: int | None = None
    models: tuple[ServedModel, ...] = ()
    problem: ErrorBody | None = None
    stage: StageOffer | None = None
    loads: LoadingOffer | None = None
    store: StoreOffer | None = None
    rests: bool = False
    tenants: Mapping[str, TenantLoad] = field(default_factory=dict)


class Lease:
    """Keeps one instance's lease alive."""

    def __init__(
        self,
        client: Client,
        identity: Identity,
        load: Callable[[], Load],
        loops: Loops | None = None,
        clock: BrokerClock | None = None,
    ) -> None:
        self._client = client
        self._bucket = Bucket(client, subjects.NODES_BUCKET, messages(NodeLease), full=FULL)
        self._identity = identity
        self._load = load
        self._loops = loops or Loops()
        self._clock = clock
        self._machine = Machine()
        self._key = subjects.node_key(identity.service, identity.instance)
        self._task: asyncio.Task[None] | None = None
        self._renew = asyncio.Event()
        self._cut = False

    async def start(self) -> None:
        """Takes the lease and renews it from now on."""
        await self._put()
        self._task = self._loops.start(self._keep(), "lease")

    def renew_soon(self) -> None:
        """Tells of a change now instead of at the next renewal."""
        self._renew.set()

    async def renew(self) -> None:
        """Renews the lease, and returns when that is done or has failed."""
        await self._attempt("renew", self._put())

    async def stop(self) -> None:
        """Gives the lease back."""
        if self._task is not None:
            self._task.cancel()
        await self._attempt("give back", self._bucket.delete(self._key))

    async def _keep(self) -> None:
        pause_s = RENEW_INTERVAL_S
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(pause_s):
                    await self._renew.wait()
            self._renew.clear()
            renewed = await self._attempt("renew", self._put())
            pause_s = RENEW_INTERVAL_S if renewed else AGAIN_AFTER_S

    async def _attempt(self, what: str, step: Awaitable[None]) -> bool:
        try:
            await step
        except ChoirError as error:
            log.warning("lease", step=what, failed=error.message)
            return False
        return True

    async def _put(self) -> None:
        whole = await self.current()
        lease = fitting(whole, min(LEASE_BYTES, self._client.max_payload - ENVELOPE_BYTES))
        if (lease is not whole) != self._cut:
            self._cut = lease is not whole
            log.warning("lease", too_large=self._cut, why=lease.problem.message if lease.problem else "")
        await self._bucket.put(self._key, lease)

    async def current(self) -> NodeLease:
        """The lease as it would be put now."""
        load, sample = self._load(), await self._machine.sample()
        return NodeLease(
            service=self._identity.service,
            instance=self._identity.instance,
            host=self._identity.host,
            host_id=self._identity.host_id,
            pid=self._identity.pid,
            version=self._identity.version,
            state=load.state,
            started_at_s=self._identity.started_at_s,
            seen_at_s=time.time(),
            clock_ahead_s=None if self._clock is None else self._clock.host_ahead_s,
            models=load.models,
            slots=load.slots,
            busy=load.busy,
            load_average=sample.load_average,
            cpu_percent=sample.cpu_percent,
            memory_used_bytes=sample.memory_used_bytes,
            host_memory_free_bytes=sample.host_memory_free_bytes,
            gpus=sample.gpus,
            stage=load.stage,
            loads=load.loads,
            store=load.store,
            problem=load.problem,
            rests=load.rests,
            tenants=dict(load.tenants),
        )
