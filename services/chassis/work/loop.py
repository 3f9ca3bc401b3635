"""The pull work loop: takes commands while it has free slots, and acknowledges them only when done.

What is promised:

- at most `slots` commands at once; sources in front go first, and a full loop asks for nothing;
- no source waits for ever: after so many commands of the first one in a row, another one has a slot;
- every command in work is reported as in progress, so it is not delivered to anybody else;
- a command is acknowledged after `handle` returned, and `handle` returns after the outcome is stored; the
  acknowledgement follows the events of the work, so that what is never told is found again;
- what fails for a passing reason goes back to the queue with a delay; what fails for good, too often,
  or past its deadline gets an error outcome; what cannot be read lies in DEAD with the reason;
- a command of a newer version is left to a newer instance, and gets its error when its time is over.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable, Coroutine, Sequence
from functools import partial
from typing import Any, Generic

import nats.errors
from nats.aio.msg import Msg

from schemas.broker.catalog import ACK_WAIT_S
from services.chassis.context import ServiceContext
from services.chassis.logs import get_logger
from services.chassis.nats.pull import PullSubscription
from services.chassis.process.stopping import DRAIN_PATIENCE_S
from services.chassis.process.supervise import log_failure
from services.chassis.work.attempts import note
from services.chassis.work.delivery import NEVER_FRESH, CommandHandler, CommandT, Delivery
from services.chassis.work.processing import Processing

HEARTBEAT_S = ACK_WAIT_S / 3
BACKGROUND_DELAY_S = 0.002
REFILL_INTERVAL_S = 1.0
FIRST_IN_A_ROW = 16
"""So many commands of the first source may go before one of another: under a load that never ends those
behind have one slot in seventeen."""

log = get_logger("chassis.work_loop")


def _nothing() -> None:
    """Where nobody waits for free slots."""


class WorkLoop(Generic[CommandT]):
    """Pulls commands of one type from one or more consumers, the first ones first."""

    def __init__(
        self,
        mesh: ServiceContext,
        command_type: type[CommandT],
        stream: str,
        consumers: Sequence[str],
        slots: int,
        worker: CommandHandler[CommandT],
        weight: int = 1,
        *,
        quarantine: bool = True,
        heeds_cordon: bool = False,
    ) -> None:
        """Without `quarantine` a command is tried again however many processes have died with it in hand. One
        that `heeds_cordon` takes nothing new while a cordon is around this instance or its host."""
        self._processing = Processing(mesh, command_type, worker, quarantine=quarantine)
        self._cordon = mesh.cordon if heeds_cordon else None
        self._loops = mesh.loops
        self._storage = mesh.storage
        self._client = mesh.client
        self._clock = mesh.clock
        self._service = mesh.identity.service
        self.slots = slots
        self.weight = weight
        self._paused = False
        self._active: dict[asyncio.Task[None], Msg] = {}
        self._storing: set[asyncio.Task[None]] = set()
        self._held: deque[Msg] = deque()
        self._subscriptions = [
            PullSubscription(self._client, stream, name, partial(self._receive, place))
            for place, name in enumerate(consumers)
        ]
        self._in_a_row = 0
        self._stream = stream
        self._floor = NEVER_FRESH
        self._open = False
        self._lock = asyncio.Lock()
        self._heartbeats: asyncio.Task[None] | None = None
        self._idle = asyncio.Event()
        self._idle.set()
        self._behind: asyncio.TimerHandle | None = None
        self._steps: set[asyncio.Task[None]] = set()
        self.on_free: Callable[[], None] = _nothing
        """Called when a slot has fallen free, before the queue is asked for more."""

    @property
    def busy(self) -> int:
        """How many commands are in work; those of which only the outcome is being stored do not count."""
        return len(self._active) - len(self._storing)

    @property
    def free(self) -> int:
        """How many more could be taken."""
        return max(0, self.slots - self.busy)

    @property
    def takes_work(self) -> bool:
        """Whether it takes what there is a free slot for."""
        return self._takes_work

    def adopt(self, msg: Msg) -> None:
        """Works on a command that another instance has pulled and handed over, as on one of its own. If all
        slots are full by now it has the next one."""
        self._spawn(self._adopt(msg))

    async def _adopt(self, msg: Msg) -> None:
        if not self._takes_work:
            await self._hand_back(msg)
            return
        if self.free == 0:
            self._held.append(msg)
        else:
            self._take(msg)
        await msg.in_progress()
        await self._refill()

    async def start(self) -> None:
        """Begins to pull."""
        self._floor = await self._storage.last_sequence(self._stream)
        self._open = True
        self._heartbeats = self._loops.start(self._keep(), f"{self._service} heartbeats")
        if self._cordon is not None:
            self._cordon.follow(self._cordon_changed)
        await self._refill()

    def mark_unfresh(self) -> None:
        """The connection is lost: what comes from now on may have been worked on before."""
        self._floor = NEVER_FRESH

    async def resume(self) -> None:
        """Asks again for work: after a reconnection, when the broker may have forgotten the subscription."""
        for subscription in self._subscriptions:
            subscription.reset()
        self._spawn(self._excuse())
        await self._refill()
        self._floor = await self._storage.last_sequence(self._stream)

    @property
    def unanswered(self) -> bool:
        """Whether the broker has no queue to pull from: nobody has made it yet."""
        return any(subscription.unanswered for subscription in self._subscriptions)

    def pause(self) -> None:
        """Takes nothing more for now, and goes on with what is in work."""
        if not self._paused:
            self._paused = True
            self._let_go()

    def _let_go(self) -> None:
        """Asks for nothing more, and gives back what has not been begun."""
        for subscription in self._subscriptions:
            subscription.cancel()
        while self._held:
            self._spawn(self._hand_back(self._held.popleft()))

    def _cordon_changed(self) -> None:
        if self._takes_work:
            self._spawn(self._refill())
        else:
            self._let_go()

    @property
    def _takes_work(self) -> bool:
        return self._open and not self._paused and not (self._cordon is not None and self._cordon.holds)

    async def unpause(self) -> None:
        """Pulls again after `pause`."""
        if self._paused:
            self._paused = False
            await self._refill()

    async def resize(self, slots: int) -> None:
        """Takes so many commands at once from now on; what is in work goes on. Without a broker it asks for
        them when there is one again."""
        self.slots = slots
        try:
            await self._refill()
        except nats.errors.Error as error:
            log.warning("asks for work later", why=str(error) or type(error).__name__)

    async def stop(self) -> None:
        """Takes nothing more, waits for what is in work, and gives back what does not end in time."""
        self._open = False
        if self._cordon is not None:
            self._cordon.unfollow(self._cordon_changed)
        if self._behind is not None:
            self._behind.cancel()
        for subscription in self._subscriptions:
            subscription.cancel()
        for subscription in self._subscriptions:
            await subscription.drained()
        await asyncio.gather(*self._steps, return_exceptions=True)
        held, self._held = self._held, deque()
        await asyncio.gather(*map(self._hand_back, held))
        try:
            async with asyncio.timeout(DRAIN_PATIENCE_S):
                await self._idle.wait()
        except TimeoutError:
            log.warning("gives unfinished work back", commands=self.busy)
            await self._give_back()
        if self._heartbeats is not None:
            self._heartbeats.cancel()

    async def _give_back(self) -> None:
        given_back = list(self._active.values())
        for task in self._active:
            task.cancel()
        await asyncio.gather(*map(self._hand_back, given_back))
        await asyncio.gather(*self._active, return_exceptions=True)

    async def _hand_back(self, msg: Msg) -> None:
        """Somebody else may have it at once. If that cannot be said, they have it when ACK_WAIT_S is over."""
        await note(self._storage, Delivery.of(msg, NEVER_FRESH), "refused")
        try:
            await msg.nak()
        except nats.errors.Error as error:
            log.warning("not given back", subject=msg.subject, why=str(error) or type(error).__name__)

    # --- demand -------------------------------------------------------------------------

    async def _refill(self) -> None:
        """Asks the first source for as many commands as there are free slots, the others a moment later.

        PullSubscription is topped up when half of it is used, so that not every command costs a pull request.
        Where the others have waited for long, one command of each is asked for while all slots are full: it
        is held, and has the next free one.
        """
        if not self._takes_work or self._client.is_closed:
            return
        first, *others = self._subscriptions
        async with self._lock:
            turn = self._in_a_row >= FIRST_IN_A_ROW
            for subscription in self._subscriptions:
                ahead = 1 if turn and subscription is not first else 0
                if subscription.in_flight > max(self.free, ahead):
                    subscription.cancel()
                if subscription.in_flight < ahead:
                    await subscription.pull(1)
            if first.in_flight * 2 <= self.free and self.free:
                await first.pull(self.free - first.in_flight, self.weight)
        if others and self.free and self._behind is None:
            loop = asyncio.get_running_loop()
            self._behind = loop.call_later(BACKGROUND_DELAY_S, self._start_refill_behind)

    def _start_refill_behind(self) -> None:
        self._behind = None
        self._spawn(self._refill_behind())

    async def _refill_behind(self) -> None:
        """By now the first source would have answered: what is still free may go to the others."""
        async with self._lock:
            if self.free:
                self._in_a_row = 0
            for subscription in self._subscriptions[1:]:
                missing = self.free - subscription.in_flight
                if self._takes_work and missing > 0:
                    await subscription.pull(missing, self.weight)

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        """Runs a short step; the set keeps it alive, for the event loop holds only weak references."""
        task = asyncio.create_task(work, name=f"{self._service} step")
        self._steps.add(task)
        task.add_done_callback(self._steps.discard)
        task.add_done_callback(log_failure)

    async def _keep(self) -> None:
        """Reports work as in progress, and mends demand that was lost."""
        beat_at = 0.0
        while True:
            try:
                if beat_at and time.monotonic() >= beat_at + ACK_WAIT_S - HEARTBEAT_S:
                    await self._excuse()  # this process has stood still
                if time.monotonic() >= beat_at:
                    beat_at = time.monotonic() + HEARTBEAT_S
                    await self._beat()
                for subscription in self._subscriptions:
                    subscription.reset_if_overdue()
                await self._refill()
            except nats.errors.Error as error:
                log.warning("heartbeat interrupted", why=str(error) or type(error).__name__)
            await asyncio.sleep(REFILL_INTERVAL_S)

    async def _excuse(self) -> None:
        """What is in work may have been given to another meanwhile, although nobody has died here."""
        in_hand = [Delivery.of(msg, NEVER_FRESH) for msg in (*self._active.values(), *self._held)]
        await asyncio.gather(*(note(self._storage, delivery, "refused") for delivery in in_hand))

    async def _beat(self) -> None:
        for msg in [*self._active.values(), *self._held]:
            await msg.in_progress()

    # --- work ---------------------------------------------------------------------------

    async def _receive(self, place: int, msg: Msg) -> None:
        self._in_a_row = 0 if place else self._in_a_row + 1
        if not self._takes_work:
            await self._hand_back(msg)
        elif self.free == 0:
            # Both queues were asked for the same free slots, so more may come than fit. A message that is
            # given back is delivered again at once, and each delivery counts as an attempt.
            self._held.append(msg)
        else:
            self._take(msg)
            if self.free == 0 or self._subscriptions[0].in_flight == 0:
                await self._refill()

    def _take(self, msg: Msg) -> None:
        self._idle.clear()
        delivery = Delivery.of(msg, self._floor, lambda: self._work_done(task), self._clock.now)
        task = asyncio.create_task(self._processing.run(delivery))
        self._active[task] = msg
        task.add_done_callback(self._finished)

    def _work_done(self, task: asyncio.Task[None]) -> None:
        """The slot is free although the outcome is not stored yet: a slow disk keeps nobody from working.

        As many as there are slots may be stored meanwhile, so that a broker that is away is not worked for.
        """
        if task in self._active and len(self._storing) < self.slots:
            self._storing.add(task)
            if self._held and self._open:
                self._take(self._held.popleft())
            self._ask_for_more()

    def _finished(self, task: asyncio.Task[None]) -> None:
        self._active.pop(task, None)
        self._storing.discard(task)
        if self._held and self._open and self.free:
            self._take(self._held.popleft())
        if not self._active:
            self._idle.set()
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("a command was left for redelivery", error=repr(error))
        self._ask_for_more()

    def _ask_for_more(self) -> None:
        if self._open:
            if self.free:
                self.on_free()
            self._spawn(self._refill())
