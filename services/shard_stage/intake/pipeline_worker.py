"""The handler of a pipeline's tasks: those that are delivered, and those that another stage 0 has begun."""

from __future__ import annotations

import asyncio
import json
from collections import deque
from collections.abc import Callable

import nats.errors
from nats.aio.msg import Msg

from schemas.commands import Generate
from schemas.errors import BrokerUnavailable, ChoirError, DeadlineExceeded
from schemas.replies import Result
from services.chassis.context import ServiceContext
from services.chassis.logs import get_logger
from services.chassis.work.delivery import RETRY_DELAY_S, Delivery, Retry
from services.chassis.work.loop import HEARTBEAT_S
from services.shard_stage.intake.pipeline_generator import Displaced, OneTask, PipelineGenerator
from services.tasks.generate import REMEMBERED_CANCELLATIONS, GenerateWorker
from services.tasks.result import store_result

SEND_BACK = Msg.Ack.Nak + b" " + json.dumps({"delay": int(RETRY_DELAY_S * 1e9)}).encode()
"""What has the broker deliver a command again, after a while."""

log = get_logger("shard_stage.worker")


class PipelineWorker:
    """Answers each task once. One that is delivered while it runs already, because it was taken over from
    another stage 0, waits for that."""

    def __init__(
        self, mesh: ServiceContext, generator: PipelineGenerator, on_adopted_done: Callable[[], None]
    ) -> None:
        """`on_adopted_done` is called whenever a task that was taken over has ended here."""
        self._mesh = mesh
        self._generator = generator
        self._on_adopted_done = on_adopted_done
        self._cancelled: deque[str] = deque(maxlen=REMEMBERED_CANCELLATIONS)
        # For a command that was read from the journal: others may have worked on it, and may be done with it.
        self._taken_over = Delivery(Msg(mesh.client), count=2, sequence=0, fresh=False)
        self._running: dict[str, asyncio.Task[None]] = {}
        self._workers: dict[str, GenerateWorker] = {}

    @property
    def adopted(self) -> int:
        """How many tasks are in work that were taken over."""
        return len(self._running)

    def cancel(self, request_id: str) -> None:
        """Nobody waits for this request any more, whether its tasks are in work or come later."""
        self._cancelled.append(request_id)
        for worker in self._workers.values():
            worker.cancel(request_id)

    async def handle(self, command: Generate, delivery: Delivery) -> None:
        """Returns when the task has an outcome; raises what ended it."""
        running = self._running.get(command.task_id)
        if running is not None:
            await asyncio.wait([running])
            delivery = self._taken_over
        await self._work(command, delivery, delivery.msg.reply or None)

    def adopt(self, command: Generate, acknowledge: str | None) -> None:
        """Goes on with a task that was not delivered here, and acknowledges its delivery when it is done."""
        task = asyncio.create_task(self._take_over(command, acknowledge), name=f"adopted {command.task_id}")
        self._running[command.task_id] = task

        def done(_task: asyncio.Task[None]) -> None:
            self._running.pop(command.task_id, None)
            self._on_adopted_done()

        task.add_done_callback(done)

    async def stop(self, patience_s: float) -> None:
        """Waits so long for the tasks that were taken over; those that are not done then are left to
        others."""
        tasks = list(self._running.values())
        if tasks and patience_s > 0:
            await asyncio.wait(tasks, timeout=patience_s)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _take_over(self, command: Generate, acknowledge: str | None) -> None:
        """Works on a task as a work loop would. What ends it for a passing reason goes back to the queue."""
        keeping = asyncio.create_task(self._keep(acknowledge))
        word = SEND_BACK
        try:
            await self._to_an_outcome(command, acknowledge)
            word = Msg.Ack.Ack
        except Retry as retry:
            if isinstance(retry.error, Displaced):
                return  # whoever is stage 0 now goes on with it, and acknowledges it
            self._tell_of_return(command, retry.error.message)
        except BrokerUnavailable as error:
            self._tell_of_return(command, error.message)
        except Exception:
            log.exception("an adopted task failed and goes back", request_id=command.request_id)
        finally:
            keeping.cancel()
            self._generator.discard(command)
        await self._tell(acknowledge, word)

    async def _to_an_outcome(self, command: Generate, acknowledge: str | None) -> None:
        """Returns when an outcome is stored; raises what may pass, as the broker's absence may."""
        left_s = command.deadline_at_s - self._mesh.clock.now()
        try:
            async with asyncio.timeout(max(0.0, left_s)) as limit:
                await self._work(command, self._taken_over, acknowledge)
        except TimeoutError:
            if not limit.expired():
                raise
            await self.on_failure(command, DeadlineExceeded("the time for this request ran out"))
        except BrokerUnavailable:
            raise
        except ChoirError as error:
            await self.on_failure(command, error)

    def _tell_of_return(self, command: Generate, why: str) -> None:
        log.warning("an adopted task goes back", request_id=command.request_id, why=why)

    async def _keep(self, acknowledge: str | None) -> None:
        """Says that an adopted task is in work, so that it is not delivered to anybody."""
        while True:
            await self._tell(acknowledge, Msg.Ack.Progress)
            await asyncio.sleep(HEARTBEAT_S)

    async def _tell(self, acknowledge: str | None, word: bytes) -> None:
        if acknowledge is None:
            return
        try:
            await self._mesh.client.publish(acknowledge, word)
        except nats.errors.Error as error:
            log.warning("a delivery could not be acknowledged", why=str(error) or type(error).__name__)

    async def _work(self, command: Generate, delivery: Delivery, acknowledge: str | None) -> None:
        if command.request_id in self._cancelled:
            return
        worker = self._worker_of(command, acknowledge)
        self._workers[command.task_id] = worker
        try:
            await worker.handle(command, delivery)
        finally:
            if self._workers.get(command.task_id) is worker:
                del self._workers[command.task_id]

    async def on_failure(self, command: Generate, error: ChoirError) -> None:
        """Stores an error as the task's outcome."""
        await self._worker_of(command, None).on_failure(command, error)

    async def on_unreadable(self, request_id: str, error: ChoirError) -> None:
        """Stores an error as the result of a request whose command cannot be read."""
        await store_result(self._mesh, Result.unreadable(request_id, error, self._mesh.clock.now()))

    def _worker_of(self, command: Generate, acknowledge: str | None) -> GenerateWorker:
        task = OneTask(self._generator, command, acknowledge)
        return GenerateWorker(self._mesh, task, capabilities=lambda: self._generator.capabilities)
