"""One delivery of a command, from its payload to its acknowledgement: worked on, sent back, left, or dead.

What fails for a passing reason goes back to the queue with a delay; what fails for good, too often, or past
its deadline gets an error outcome; what cannot be read lies in DEAD with the reason.
"""

from __future__ import annotations

import asyncio
import time
from dataclasses import replace
from typing import Generic, cast

from pydantic import ValidationError

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
from services.chassis.telemetry.tracing import Work, enter
from services.chassis.work.attempts import ALONE_AFTER, Past, note, out_of_time, past
from services.chassis.work.delivery import CommandHandler, CommandT, Delivery, HandedOver, Retry
from services.chassis.work.newer import NewerCommand, newer_command

MAX_ATTEMPTS = 8
DEADLINE_GRACE_S = 2.0

NEWER_DELAY_S = 2.0
NEWER_TRIES = 4
"""At least so many more pauses fit into the time that is left, as long as they are not too short. With these
the broker delivers a command for longer than any request lives: 34 times in an hour, of `MAX_DELIVER`."""
LONGEST_REQUEST_S = 3600.0
"""What a request may take at most: for commands that do not say when their time is over."""

log = get_logger("chassis.work_loop")


class Processing(Generic[CommandT]):
    """Hands commands of one type to their handler, and ends each delivery."""

    def __init__(
        self,
        mesh: ServiceContext,
        command_type: type[CommandT],
        worker: CommandHandler[CommandT],
        *,
        quarantine: bool,
    ) -> None:
        """Without `quarantine` a command is tried again however many processes have died with it in hand."""
        self._quarantine = quarantine
        self._solitude = mesh.solitude
        self._storage = mesh.storage
        self._events = mesh.events
        self._tracing = mesh.tracing
        self._clock = mesh.clock
        self._service = mesh.identity.service
        self._command_type = command_type
        self._worker = worker

    async def run(self, delivery: Delivery) -> None:
        """Works on a delivery within a span of its own: the task that calls it does nothing else."""
        span, started_s = self._tracing.start_span(delivery.msg.headers), time.time()
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
            maybe_poison = self._quarantine and before.silent >= ALONE_AFTER
            delivery = replace(delivery, refused=before.refused, maybe_poison=maybe_poison)
            if (poison := self._verdict(delivery, before)) is not None:
                await self._dead_letter(command.request_id, delivery, poison, task_of(command))
                await self._on_failure(command, poison)
                await delivery.msg.ack()
                return
        try:
            await self._within_deadline(command, delivery)
        except HandedOver:
            return  # whoever has it now acknowledges it
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
        except (Retry, HandedOver, asyncio.CancelledError):
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
                if delivery.maybe_poison:
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
            log.warning(
                "processes have died over this command: it runs alone",
                request_id=command.request_id,
            )
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
