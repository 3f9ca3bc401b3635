"""Ends commands past their deadline, and those that the broker has given up.

An accepted request gets a result even if no agent of its model ever comes back. And what a broker still holds
after it was killed, though its consumer counts it as acknowledged, does not stay for ever.
"""

from __future__ import annotations

import asyncio
import json
import time

import nats.errors
import nats.js.errors
from nats.aio.msg import Msg
from nats.js import JetStreamContext

from schemas import subjects
from schemas.commands import Command, Generate
from schemas.errors import (
    BrokerUnavailable,
    ChoirError,
    DeadlineExceeded,
    PoisonMessage,
    UnsupportedVersion,
)
from schemas.events import MessageDied, TaskCompleted
from schemas.replies import Answer, Result
from services.chassis.context import ServiceContext
from services.chassis.logs import get_logger
from services.chassis.nats.pull import PullSubscription
from services.chassis.nats.reading import Stored
from services.chassis.telemetry.tracing import within
from services.chassis.work.attempts import out_of_time
from services.chassis.work.newer import deadline_of
from services.router.queued import parse_command
from services.router.retention.stream_trimmer import StreamTrimmer
from services.tasks.storing import store_result

GRACE_S = 5.0
BATCH = 1_024
DEAD_LETTER_SLOTS = 8
COUNT_INTERVAL_S = 5.0

log = get_logger("router.sweeper")


class Sweeper:
    """Looks through the queue again and again, and takes up the broker's max-deliveries advisories.

    `queued` is how many commands waited or were in work when it last looked.
    """

    def __init__(self, mesh: ServiceContext, interval_s: float) -> None:
        self._mesh = mesh
        self._storage = mesh.storage
        self._js = JetStreamContext(mesh.client, timeout=2.0)
        self._trimmer = StreamTrimmer(mesh.client)
        self._interval_s = interval_s
        self._position = 1
        self.queued: int | None = None
        self._counted_at_s = -COUNT_INTERVAL_S
        self._tasks: list[asyncio.Task[None]] = []
        self._advisories = PullSubscription(
            mesh.client, subjects.DEAD_STREAM, subjects.DEAD_LETTER_CONSUMER, self._on_advisory
        )

    async def start(self) -> None:
        """Sweeps from now on."""
        self._tasks = [self._mesh.loops.start(self._sweep_for_ever(), "sweeper")]

    async def stop(self) -> None:
        """Sweeps no more."""
        for task in self._tasks:
            task.cancel()
        self._advisories.cancel()

    def resume(self) -> None:
        """After a reconnection: the broker has forgotten what it was asked for."""
        self._advisories.reset()

    async def _sweep_for_ever(self) -> None:
        while True:
            try:
                self._advisories.reset_if_overdue()
                if self._advisories.in_flight == 0:
                    await self._advisories.pull(DEAD_LETTER_SLOTS)
                await self.sweep()
                await self._count()
                await self._trimmer.make()
            except (ChoirError, nats.errors.Error, nats.js.errors.Error) as error:
                log.warning("sweep interrupted", why=str(error) or type(error).__name__)
            await asyncio.sleep(self._interval_s)

    async def sweep(self) -> None:
        """Looks at the next commands in the queue and ends those whose time is over."""
        for _ in range(BATCH):
            stored = await self._storage.next(subjects.COMMANDS_STREAM, subjects.ALL_COMMANDS, self._position)
            if stored is None:
                self._position = 1
                return
            self._position = stored.sequence + 1
            await self._end_if_expired(stored)

    async def _count(self) -> None:
        """For the samples of this instance, which are taken more rarely than it sweeps."""
        if time.monotonic() < self._counted_at_s + COUNT_INTERVAL_S:
            return
        self._counted_at_s = time.monotonic()
        info = await self._js.stream_info(subjects.COMMANDS_STREAM)
        self.queued = info.state.messages

    async def _end_if_expired(self, stored: Stored) -> None:
        try:
            command = parse_command(stored.data)
        except PoisonMessage:
            return  # whoever pulls it buries it
        except UnsupportedVersion as newer:
            await self._end_newer_if_expired(stored, newer)
            return
        if self._mesh.clock.now() > command.deadline_at_s + GRACE_S:
            with within(self._mesh.tracing.follow(stored.traceparent)):
                late = DeadlineExceeded("nobody was free in time for this request")
                error = await out_of_time(self._storage, stored.sequence, late)
                await self._end(stored, command, error)

    async def _end_newer_if_expired(self, stored: Stored, error: UnsupportedVersion) -> None:
        """A command that only newer services can read ends like any other, and says which it needs."""
        deadline_at_s = deadline_of(stored.data)
        now_s = self._mesh.clock.now()
        if deadline_at_s is not None and now_s > deadline_at_s + GRACE_S:
            request_id = subjects.request_of(stored.subject)
            log.warning("command ended", request_id=request_id, code=error.code)
            await store_result(self._mesh, Result.unreadable(request_id, error, now_s))
            await self._delete(stored)

    async def _on_advisory(self, msg: Msg) -> None:
        """The broker has delivered a message as often as it may: it gets its error, and a grave."""
        advisory = json.loads(msg.data)
        if advisory.get("stream") == subjects.COMMANDS_STREAM:
            stored = await self._storage.at(subjects.COMMANDS_STREAM, int(advisory["stream_seq"]))
            if stored is not None:
                with within(self._mesh.tracing.follow(stored.traceparent)):
                    await self._dead_letter(stored)
        await msg.ack()

    async def _dead_letter(self, stored: Stored) -> None:
        error = PoisonMessage("delivered too often and never finished")
        request_id = subjects.request_of(stored.subject)
        await self._storage.dead_letter("router", request_id, stored.data, error.message)
        self._mesh.events.publish(MessageDied, request_id=request_id, error=error.body(request_id))
        try:
            command = parse_command(stored.data)
        except (PoisonMessage, UnsupportedVersion) as unreadable:
            result = Result.unreadable(request_id, unreadable, self._mesh.clock.now())
            await store_result(self._mesh, result)
            await self._delete(stored)
            return
        await self._end(stored, command, error)

    async def _end(self, stored: Stored, command: Command, error: ChoirError) -> None:
        log.warning("command ended", request_id=command.request_id, code=error.code)
        if isinstance(command, Generate) and command.routing_slip:
            answer = Answer.failed(command, error, self._mesh.identity.instance)
            subject = subjects.answer(command.request_id, command.round, command.agent)
            if await self._storage.store_once(subject, answer.to_bytes()):
                self._emit_ended(answer)
        else:
            await store_result(self._mesh, Result.failed(command, error, self._mesh.clock.now()))
        await self._delete(stored)

    def _emit_ended(self, answer: Answer) -> None:
        """A task that no agent took ends here."""
        self._mesh.events.publish(
            TaskCompleted,
            request_id=answer.request_id,
            task_id=answer.task_id,
            model=answer.model,
            round=answer.round,
            finish_reason=answer.finish_reason,
            prompt_tokens=0,
            generated_tokens=0,
            timings=answer.timings,
            error=answer.error,
        )

    async def _delete(self, stored: Stored) -> None:
        try:
            await self._js.delete_msg(subjects.COMMANDS_STREAM, stored.sequence)
        except nats.js.errors.APIError as error:
            log.info("already gone", sequence=stored.sequence, why=error.description)
        except nats.errors.TimeoutError as error:
            raise BrokerUnavailable("a swept command could not be deleted") from error
