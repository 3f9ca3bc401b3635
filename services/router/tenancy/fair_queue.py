"""Weighted fairness between tenants in the queues of batch work.

A queue is worked on in the order of its messages, so whoever has more of them in it gets more of the work.
Where there are several tenants, one has only its part of a queue's window in the queue itself; what it asks
for besides is held, as durably and in order, on a subject of the same stream that nobody pulls from. When
there is room in a window, one router moves the next command there of the tenant that has least in the queue
by its weight. So a thousand requests of one hold nobody else up for longer than a window takes, and of work
that never ends each gets its part, counted in commands.

Which router does that is settled by their leases. Two that do it for a moment do no harm: what is moved
twice is stored once. What is in the queues is read from the stream, so a router that has just begun knows it.
Interactive requests, and a mesh with one tenant, have nothing to do with all this.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence

import nats.errors
import nats.js.errors
from nats.js import JetStreamContext

from schemas import subjects
from schemas.errors import ChoirError
from schemas.nodes.lease import NodeLease
from schemas.subjects import Priority
from services.chassis.context import ServiceContext
from services.chassis.logs import get_logger
from services.chassis.nats.reading import Stored
from services.chassis.registry.directory import Directory
from services.chassis.registry.tenants import Tenants
from services.chassis.telemetry.tracing import within
from services.router.tenancy.limits import TenantLimits

LEAST_WINDOW = 16
WINDOW_PER_SLOT = 2
LOOK_INTERVAL_S = 1.0
PAUSE_S = 0.02
"""Between two looks at the queues, however much happens."""
EMPTY_S = 2.0
"""So long a tenant that holds nothing for a queue is not asked for again, unless it is given something."""
MOST_AT_ONCE = 256
TIMEOUT_S = 2.0

log = get_logger("router.fair_queue")


class FairQueue:
    """Where a command is stored, and when one that is held comes into its queue. `routers` are those that
    live. `may_hold` is False where nothing is held: there is one tenant alone."""

    def __init__(
        self,
        mesh: ServiceContext,
        tenants: Tenants,
        limits: TenantLimits,
        directory: Directory,
        routers: Callable[[], Sequence[NodeLease]],
    ) -> None:
        self._mesh = mesh
        self._js = JetStreamContext(mesh.client, timeout=TIMEOUT_S)
        self._tenants = tenants
        self._limits = limits
        self._directory = directory
        self._routers = routers
        self._news = asyncio.Event()
        self._nothing_until_s: dict[tuple[str, str], float] = {}
        self._task: asyncio.Task[None] | None = None
        self.may_hold = True

    def start(self) -> None:
        """Moves what is held from now on."""
        self._task = self._mesh.loops.start(self._keep(), "fair queue")

    async def stop(self) -> None:
        """Moves nothing more."""
        if self._task is not None:
            self._task.cancel()

    def on_result(self, request_id: str, data: bytes) -> None:
        """A request has ended with this result: its tenant may have more in work, a queue may have room."""
        self._limits.on_result(request_id, data)
        if self.may_hold:
            self._news.set()

    def place(self, subject: str, request_id: str, priority: Priority) -> str:
        """Where the command of a request that is let in is to be stored: in its queue, or held for it."""
        tenant = subjects.owner_of(request_id)
        if priority != "batch" or not self._several:
            return subject
        queue = subjects.queue_of(subject)
        at_once = int(self._window(queue) * self._share(tenant) / max(1, len(self._routers())))
        if self._limits.load_of(tenant).batch <= max(1, at_once):
            return subject
        self._nothing_until_s.pop((tenant, queue), None)
        self._news.set()
        return subjects.held(tenant, subject)

    @property
    def _several(self) -> bool:
        return any(tenant.name != subjects.LOCAL_TENANT for tenant in self._tenants.known)

    def _names(self) -> set[str]:
        """Everybody who may have something in a queue."""
        told = (lease.tenants for lease in self._routers())
        known = {tenant.name for tenant in self._tenants.known}
        return {subjects.LOCAL_TENANT, *known, *self._limits.loads, *(name for one in told for name in one)}

    def _weight(self, name: str) -> float:
        tenant = self._tenants.find(name)
        return 1.0 if tenant is None else tenant.weight

    def _share(self, name: str) -> float:
        """The part of a window that is a tenant's own, of all who may have something in a queue."""
        return self._weight(name) / sum(map(self._weight, {*self._names(), name}))

    def _window(self, queue: str) -> int:
        """How many batch commands of all tenants a queue may have: enough that no slot waits for the next."""
        for model, serving in self._directory.serving().items():
            if queue == subjects.queue_of(subjects.generate("batch", model, "r")):
                return max(LEAST_WINDOW, WINDOW_PER_SLOT * sum(served.slots for _, served in serving))
        return LEAST_WINDOW

    # --- what is held ---------------------------------------------------------------------

    async def _keep(self) -> None:
        while True:
            try:
                async with asyncio.timeout(LOOK_INTERVAL_S):
                    await self._news.wait()
            except TimeoutError:
                log.debug("looks without news")
            self._news.clear()
            started_s = time.monotonic()
            try:
                self.may_hold = self._several or (self.may_hold and await self._holds_anything())
                if self.may_hold and self._moves:
                    await self.move()
            except (ChoirError, nats.errors.Error, nats.js.errors.Error) as error:
                log.warning(
                    "held commands were not moved into the queue", why=str(error) or type(error).__name__
                )
                await asyncio.sleep(LOOK_INTERVAL_S)
            await asyncio.sleep(max(PAUSE_S, 2 * (time.monotonic() - started_s)))

    async def _holds_anything(self) -> bool:
        stored = await self._mesh.storage.next(subjects.COMMANDS_STREAM, subjects.all_held(), 1)
        return stored is not None

    @property
    def _moves(self) -> bool:
        """Whether it is this router's part: that of the first one by its name, if nobody else is known."""
        names = [lease.instance for lease in self._routers() if lease.state == "ready"]
        own = self._mesh.identity.instance
        return own == min(names, default=own)

    async def move(self) -> None:
        """Moves what is held into the queues that have room, as the tenants' weights say."""
        heads = await self._heads()
        if not heads:
            return
        queued = await self._queued()
        for _ in range(MOST_AT_ONCE):
            open_ = [one for one in heads if self._has_room(queued, one[1])]
            if not open_:
                return
            tenant, queue = min(open_, key=lambda one: (queued[one] / self._weight(one[0]), one))
            await self._move(heads[tenant, queue])
            queued[tenant, queue] += 1
            head = await self._head(tenant, queue, heads.pop((tenant, queue)).sequence + 1)
            if head is not None:
                heads[tenant, queue] = head
        self._news.set()

    def _has_room(self, queued: Counter[tuple[str, str]], queue: str) -> bool:
        return sum(count for (_, one), count in queued.items() if one == queue) < self._window(queue)

    async def _heads(self) -> dict[tuple[str, str], Stored]:
        """The first command of every tenant, for every queue."""
        now_s = time.monotonic()
        asked = [
            (tenant, queue)
            for tenant in self._names()
            for queue in self._queues()
            if self._nothing_until_s.get((tenant, queue), 0.0) <= now_s
        ]
        found = {one: await self._head(*one, 1) for one in asked}
        return {one: head for one, head in found.items() if head is not None}

    def _queues(self) -> Iterable[str]:
        models = {
            model for lease in self._directory.nodes for model in (served.name for served in lease.models)
        }
        yield from (subjects.queue_of(subjects.generate("batch", model, "r")) for model in sorted(models))
        yield subjects.queue_of(subjects.gather("batch", "r"))
        yield subjects.queue_of(subjects.summarize("batch", "r"))

    async def _head(self, tenant: str, queue: str, sequence: int) -> Stored | None:
        held = subjects.held(tenant, f"{queue}.*")
        stored = await self._mesh.storage.next(subjects.COMMANDS_STREAM, held, sequence)
        if stored is None:
            self._nothing_until_s[tenant, queue] = time.monotonic() + EMPTY_S
        return stored

    async def _queued(self) -> Counter[tuple[str, str]]:
        """How many batch commands of each tenant each queue has, those in work among them."""
        info = await self._js.stream_info(
            subjects.COMMANDS_STREAM, subjects_filter=subjects.all_of_class("batch")
        )
        queued: Counter[tuple[str, str]] = Counter()
        for subject, count in (info.state.subjects or {}).items():
            if not subjects.is_held(subject):
                queued[
                    subjects.owner_of(subjects.request_of_command(subject)), subjects.queue_of(subject)
                ] += count
        return queued

    async def _move(self, stored: Stored) -> None:
        """Into the queue first: one that dies in between leaves both, and the second time is a duplicate."""
        request_id = subjects.request_of_command(stored.subject)
        with within(self._mesh.tracing.follow(stored.traceparent)):
            await self._mesh.storage.enqueue(
                subjects.freed(stored.subject), stored.data, message_id=f"freed.{request_id}"
            )
        try:
            await self._js.delete_msg(subjects.COMMANDS_STREAM, stored.sequence)
        except nats.js.errors.NotFoundError:
            log.info("moved by another router as well", request_id=request_id)
