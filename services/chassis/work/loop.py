"""The pull work loop: takes commands while it has free slots, and acknowledges them only when done.

What is promised:

- at most `slots` commands at once; sources in front go first, and a full loop asks for nothing;
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
from collections.abc import Coroutine, Sequence
from dataclasses import replace
from typing import Any, Generic, cast

import nats.errors
from nats.aio.msg import Msg
from pydantic import ValidationError

from schemas.catalog import ACK_WAIT_S
from schemas.commands import Command, Generate
from schemas.errors import (
    BrokerUnavailable,
    ChoirError,
    DeadlineExceeded,
    InternalError,
    PoisonMessage,
)
from schemas.events import MessageDied, TaskRetried
from services.chassis.context import ServiceContext
from services.chassis.logs import get_logger
from services.chassis.nats.pull import PullSubscription
from services.chassis.stopping import DRAIN_PATIENCE_S
from services.chassis.supervise import tell_failure
from services.chassis.telemetry.tracing import Work, enter
from services.chassis.work.attempts import ALONE_AFTER, Past, note, out_of_time, past
from services.chassis.work.delivery import NEVER_FRESH, CommandHandler, CommandT, Delivery, Retry
from services.chassis.work.newer import NewerCommand, newer_command

HEARTBEAT_S = ACK_WAIT_S / 3
BACKGROUND_DELAY_S = 0.002
MAX_ATTEMPTS = 8
DEADLINE_GRACE_S = 2.0
REFILL_INTERVAL_S = 1.0

NEWER_DELAY_S = 2.0
NEWER_TRIES = 4
"""At least so many more pauses fit into the time that is left, as long as they are not too short. With these
the broker delivers a command for longer than any request lives: 34 times in an hour, of `MAX_DELIVER`."""
LONGEST_REQUEST_S = 3600.0
"""What a request may take at most: for commands that do not say when their time is over."""

log = get_logger("chassis.work_loop")


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
    ) -> None:
        """Without `quarantine` a command is tried again however many processes have died with it in hand."""
        self._quarantine = quarantine
        self._solitude = mesh.solitude
        self._loops = mesh.loops
        self._storage = mesh.storage
        self._client = mesh.client
        self._events = mesh.events
        self._tracing = mesh.tracing
        self._clock = mesh.clock
        self._service = mesh.identity.service
        self._command_type = command_type
        self._worker = worker
        self.slots = slots
        self.weight = weight
        self._paused = False
        self._active: dict[asyncio.Task[None], Msg] = {}
        self._storing: set[asyncio.Task[None]] = set()
        self._held: deque[Msg] = deque()
        self._subscriptions = [
            PullSubscription(self._client, stream, name, self._receive) for name in consumers
        ]
        self._stream = stream
        self._floor = NEVER_FRESH
        self._open = False
        self._lock = asyncio.Lock()
        self._keeper: asyncio.Task[None] | None = None
        self._idle = asyncio.Event()
        self._idle.set()
        self._behind: asyncio.TimerHandle | None = None
        self._steps: set[asyncio.Task[None]] = set()

    @property
    def busy(self) -> int:
        """How many commands are in work; those of which only the outcome is being stored do not count."""
        return len(self._active) - len(self._storing)

    @property
    def free(self) -> int:
        """How many more could be taken."""
        return max(0, self.slots - self.busy)

    async def start(self) -> None:
        """Begins to pull."""
        self._floor = await self._storage.last_sequence(self._stream)
        self._open = True
        self._keeper = self._loops.start(self._keep(), f"{self._service} heartbeats")
        await self._refill()

    def suspect(self) -> None:
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
            for subscription in self._subscriptions:
                subscription.cancel()
            while self._held:
                self._spawn(self._hand_back(self._held.popleft()))

    async def go_on(self) -> None:
        """Pulls again after `pause`."""
        if self._paused:
            self._paused = False
            await self._refill()

    async def stop(self) -> None:
        """Takes nothing more, waits for what is in work, and gives back what does not end in time."""
        self._open = False
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
        if self._keeper is not None:
            self._keeper.cancel()

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
        """
        if not self._open or self._paused or self._client.is_closed:
            return
        first, *others = self._subscriptions
        async with self._lock:
            for subscription in self._subscriptions:
                if subscription.in_flight > self.free:
                    subscription.cancel()
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
            for subscription in self._subscriptions[1:]:
                missing = self.free - subscription.in_flight
                if self._open and not self._paused and missing > 0:
                    await subscription.pull(missing, self.weight)

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        """Runs a short step; the set keeps it alive, for the event loop holds only weak references."""
        task = asyncio.create_task(work, name=f"{self._service} step")
        self._steps.add(task)
        task.add_done_callback(self._steps.discard)
        task.add_done_callback(tell_failure)

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

    async def _receive(self, msg: Msg) -> None:
        if not self._open or self._paused:
            await self._hand_back(msg)
        elif self.free == 0:
            # Demanded from several sources when there was room. Given back, it would come again at once, and
            # every time counts as a failed attempt: it is held until a slot is free.
            self._held.append(msg)
        else:
            self._take(msg)
            if self.free == 0 or self._subscriptions[0].in_flight == 0:
                await self._refill()

    def _take(self, msg: Msg) -> None:
        self._idle.clear()
        delivery = Delivery.of(msg, self._floor, lambda: self._work_done(task), self._clock.now)
        task = asyncio.create_task(self._work(delivery))
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
            if self._open:
                self._spawn(self._refill())

    def _finished(self, task: asyncio.Task[None]) -> None:
        self._active.pop(task, None)
        self._storing.discard(task)
        if self._held and self._open and self.free:
            self._take(self._held.popleft())
        if not self._active:
            self._idle.set()
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("a command was left for redelivery", error=repr(error))
        if self._open:
            self._spawn(self._refill())

    async def _work(self, delivery: Delivery) -> None:
        """Works within a span of its own: this task does nothing else."""
        span, started_s = self._tracing.take_up(delivery.msg.headers), time.time()
        enter(span)
        try:
            await self._work_on(delivery)
        finally:
            name, subject = self._command_type.__name__.lower(), delivery.msg.subject
            self._events.ended(Work(span, "consumer", name, subject, started_s, time.time()))

    async def _work_on(self, delivery: Delivery) -> None:
        command: CommandT
        try:
            command = cast(CommandT, self._command_type.model_validate_json(delivery.msg.data))
        except ValidationError as error:
            newer = newer_command(delivery.msg.data, error)
            if newer is not None:
                await self._leave(delivery, newer)
                return
            await self._on_unreadable(
                delivery, PoisonMessage(f"not a {self._command_type.__name__}: {error}")
            )
            return
        if delivery.count > ALONE_AFTER:
            before = await past(self._storage, delivery)
            suspect = self._quarantine and before.silent >= ALONE_AFTER
            delivery = replace(delivery, refused=before.refused, suspect=suspect)
            if (poison := self._verdict(delivery, before)) is not None:
                await self._dead_letter(command.request_id, delivery, poison, task_of(command))
                await self._on_failure(command, poison)
                await delivery.msg.ack()
                return
        try:
            await self._within_deadline(command, delivery)
        except Retry as retry:
            if delivery.attempt < MAX_ATTEMPTS:
                await self._send_back(command, delivery, retry)
                return
            await self._on_failure(command, retry.error)
        self._events.then(delivery.msg.ack)

    def _verdict(self, delivery: Delivery, before: Past) -> PoisonMessage | None:
        """Why a command is not tried once more, if it is not."""
        if self._quarantine and before.alone:
            return PoisonMessage(
                f"{before.silent} processes have died while they worked on it, one of them on nothing else: "
                "it is not tried again"
            )
        if delivery.attempt > MAX_ATTEMPTS:
            return PoisonMessage(f"tried {delivery.attempt - 1} times and never finished")
        return None

    async def _leave(self, delivery: Delivery, newer: NewerCommand) -> None:
        """Leaves a command of a newer version to an instance that can read it, if there is one in its time.

        It comes again after ever longer pauses, and shorter ones when its time runs out: it may come to one
        like this time and again before it comes to a newer one. None of that is an attempt.
        """
        error = newer.error(self._service)
        deadline_at_s = newer.deadline_at_s or delivery.stored_at_s + LONGEST_REQUEST_S
        left_s = deadline_at_s - self._clock.now()
        if left_s > 0:
            longest_s = max(NEWER_DELAY_S, left_s / NEWER_TRIES)
            delay_s = min(NEWER_DELAY_S * 2 ** (delivery.count - 1), longest_s, left_s)
            log.warning("left to a newer instance", request_id=delivery.request_id, why=error.message)
            await note(self._storage, delivery, "refused")
            await delivery.msg.nak(delay=delay_s)
            body = error.body(delivery.request_id)
            self._events.publish(
                TaskRetried,
                request_id=delivery.request_id,
                delivery=delivery.count,
                delay_s=delay_s,
                error=body,
            )
            return
        await self._worker.on_unreadable(delivery.request_id, error)
        self._events.then(delivery.msg.ack)

    async def _within_deadline(self, command: CommandT, delivery: Delivery) -> None:
        """Handles a command; every end of it but Retry is an outcome."""
        left_s = command.deadline_at_s - self._clock.now()
        try:
            if left_s <= 0:
                late = DeadlineExceeded("the time for this request ran out while it was queued")
                tried = delivery.count > 1
                raise await out_of_time(self._storage, delivery.sequence, late) if tried else late
            await self._handle_for(left_s + DEADLINE_GRACE_S, command, delivery)
        except BrokerUnavailable as error:
            raise Retry(error) from error
        except ChoirError as error:
            await self._on_failure(command, error)
        except (Retry, asyncio.CancelledError):
            raise
        except Exception as error:
            log.exception("a handler failed", request_id=command.request_id)
            if delivery.attempt < 3:
                raise Retry(InternalError(f"{type(error).__name__} in {self._service}")) from error
            failure = InternalError(f"{type(error).__name__} in {self._service}")
            await self._dead_letter(command.request_id, delivery, failure, task_of(command))
            await self._on_failure(command, failure)

    async def _handle_for(self, seconds: float, command: CommandT, delivery: Delivery) -> None:
        try:
            async with asyncio.timeout(seconds) as limit:
                if delivery.suspect:
                    await self._handle_alone(command, delivery)
                else:
                    await self._solitude.enter()
                    try:
                        await self._worker.handle(command, delivery)
                    finally:
                        self._solitude.leave()
        except TimeoutError as error:
            if not limit.expired():
                raise
            raise DeadlineExceeded("the time for this request ran out") from error

    async def _handle_alone(self, command: CommandT, delivery: Delivery) -> None:
        async with self._solitude.alone():
            log.warning("others have died with it in hand: it is alone", request_id=command.request_id)
            await note(self._storage, delivery, "alone")
            await self._worker.handle(command, delivery)

    async def _on_failure(self, command: CommandT, error: ChoirError) -> None:
        log.warning("command ends in an error", request_id=command.request_id, code=error.code)
        await self._worker.on_failure(command, error)

    async def _send_back(self, command: CommandT, delivery: Delivery, retry: Retry) -> None:
        log.warning("command goes back", request_id=command.request_id, why=retry.error.message)
        await note(self._storage, delivery, "failed", retry.error)
        await delivery.msg.nak(delay=retry.delay_s)
        body = retry.error.body(command.request_id)
        self._events.publish(
            TaskRetried,
            request_id=command.request_id,
            task_id=task_of(command),
            delivery=delivery.count,
            delay_s=retry.delay_s,
            error=body,
        )

    async def _on_unreadable(self, delivery: Delivery, error: PoisonMessage) -> None:
        """Keeps what cannot be read in DEAD, and answers its request with an error."""
        log.error("unreadable command", subject=delivery.msg.subject)
        await self._dead_letter(delivery.request_id, delivery, error)
        await self._worker.on_unreadable(delivery.request_id, PoisonMessage("the command could not be read"))
        await delivery.msg.ack()

    async def _dead_letter(
        self, request_id: str, delivery: Delivery, error: ChoirError, task_id: str | None = None
    ) -> None:
        await self._storage.dead_letter(self._service, request_id, delivery.msg.data, error.message)
        body = error.body(request_id)
        self._events.publish(MessageDied, request_id=request_id, task_id=task_id, error=body)


def task_of(command: Command) -> str | None:
    """The task that a command is, if it is one generation."""
    return command.task_id if isinstance(command, Generate) else None
