"""The intake of stage 0: from a task, pulled or left by another stage 0, to its stored outcome."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterable
from pathlib import Path

import nats.errors
from nats.aio.msg import Msg

from schemas import subjects
from schemas.commands import CountTokens, Generate, Tokenize
from schemas.errors import BrokerUnavailable, ChoirError, DeadlineExceeded, InvalidRequest
from schemas.nodes.lease import ServedModel
from schemas.pipelines.plan import PipelinePlan
from services.chassis.context import ServiceContext
from services.chassis.logs import get_logger
from services.chassis.nats.endpoints import Caller, Endpoints
from services.chassis.process.stopping import DRAIN_PATIENCE_S
from services.chassis.work.delivery import RETRY_DELAY_S, Delivery, Retry
from services.chassis.work.loop import HEARTBEAT_S, WorkLoop
from services.engine.model.gguf.header import GgufHeader
from services.shard_stage.handover.journal import UnfinishedSequence
from services.shard_stage.intake.pipeline_generator import Displaced, PipelineGenerator
from services.shard_stage.pipeline.sequence_state import SequenceState
from services.tasks.generate import Generated, GenerateWorker, OnPiece

DESCRIPTION = "The first stage of a pipeline"
BACKEND = "pipeline"
SEND_BACK = Msg.Ack.Nak + b" " + json.dumps({"delay": int(RETRY_DELAY_S * 1e9)}).encode()
"""Asks the broker to deliver a command again, after a while."""

log = get_logger("shard_stage.intake")


class Intake(GenerateWorker):
    """Pulls tasks for its model like any agent, from when all stages were ready for the first time until the
    place is left. Each task is answered once: one that is delivered while it runs already, because it was
    taken over from another stage 0, waits for that."""

    def __init__(
        self,
        mesh: ServiceContext,
        plan: PipelinePlan,
        generator: PipelineGenerator,
        model: Path,
        header: GgufHeader,
        size_bytes: int | None = None,
    ) -> None:
        """`model` is the file that all slices are made of, of `size_bytes` where it is not on this host;
        `header` that of one of them."""
        super().__init__(mesh, capabilities=lambda: generator.capabilities, model_sha256=lambda: plan.sha256)
        self._model = model
        self._size_bytes = size_bytes or model.stat().st_size
        self._quantisation = header.quantisation
        self._plan = plan
        self._generator = generator
        self._acknowledge: dict[str, str | None] = {}
        # For a command that was read from the journal: others may have worked on it, and may be done with it.
        self._taken_over = Delivery(Msg(mesh.client), count=2, sequence=0, fresh=False)
        self._adopted: dict[str, asyncio.Task[None]] = {}
        consumers = [subjects.generate_consumer(priority, plan.model) for priority in subjects.PRIORITIES]
        # A text may outlive its first stage many times: what others have begun is gone on with.
        self._loop = WorkLoop(
            mesh, Generate, subjects.COMMANDS_STREAM, consumers, plan.slots, self, quarantine=False
        )
        self._endpoints = Endpoints(mesh.client, mesh.identity, DESCRIPTION)
        self._opening: asyncio.Task[None] | None = None
        self._closed = False
        self.is_open = False

    # --- tasks that are delivered -------------------------------------------------------

    async def handle(self, command: Generate, delivery: Delivery) -> None:
        """Returns when the task has an outcome; raises what ended it."""
        adopted = self._adopted.get(command.task_id)
        if adopted is not None:
            await asyncio.wait([adopted])
            delivery = self._taken_over
        await self._answer_once(command, delivery, delivery.msg.reply or None)

    async def generate(self, command: Generate, on_piece: OnPiece | None) -> Generated:
        if command.embed is not None:
            raise InvalidRequest("embed: a pipeline has no vectors: ask another model", field="embed")
        return await self._generator.generate(command, self._acknowledge[command.task_id], on_piece)

    async def _answer_once(self, command: Generate, delivery: Delivery, acknowledge: str | None) -> None:
        """`acknowledge` is told to a stage 0 that takes this one's place."""
        self._acknowledge[command.task_id] = acknowledge
        try:
            await super().handle(command, delivery)
        finally:
            del self._acknowledge[command.task_id]

    # --- tasks that are taken over ------------------------------------------------------

    @property
    def adopted(self) -> int:
        """How many tasks are in work that were taken over."""
        return len(self._adopted)

    @property
    def in_work(self) -> int:
        """How many tasks are in work, wherever they came from."""
        return self._loop.busy + self.adopted

    def adopt(self, left: Iterable[UnfinishedSequence]) -> list[SequenceState]:
        """Takes up what another stage 0 has left; the sequences that have to go on. None when the place was
        left meanwhile."""
        if self._closed:
            return []
        sequences = []
        for unfinished in left:
            sequence = self._generator.adopt(unfinished)
            if sequence is not None:
                sequences.append(sequence)
            if unfinished.start.command is not None:
                self.take_over(unfinished.start.command, unfinished.start.acknowledge)
        return sequences

    def take_over(self, command: Generate, acknowledge: str | None) -> None:
        """Goes on with a task that was not delivered here, and acknowledges its delivery when it is done."""
        task = asyncio.create_task(self._take_over(command, acknowledge), name=f"adopted {command.task_id}")
        self._adopted[command.task_id] = task
        self._share_slots()

        def done(_task: asyncio.Task[None]) -> None:
            self._adopted.pop(command.task_id, None)
            self._share_slots()

        task.add_done_callback(done)

    def _share_slots(self) -> None:
        """Sequences that were taken over have slots too: only as much is pulled as there is room for."""
        self._loop.slots = max(0, self._plan.slots - self.adopted)

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
            self._emit_return(command, retry.error.message)
        except BrokerUnavailable as error:
            self._emit_return(command, error.message)
        except Exception:
            log.exception("an adopted task failed and goes back", request_id=command.request_id)
        finally:
            keeping.cancel()
            self._generator.discard(command)
        await self._send_word(acknowledge, word)

    async def _to_an_outcome(self, command: Generate, acknowledge: str | None) -> None:
        """Returns when an outcome is stored; raises what may pass, as the broker's absence may."""
        left_s = command.deadline_at_s - self._mesh.clock.now()
        try:
            async with asyncio.timeout(max(0.0, left_s)) as limit:
                await self._answer_once(command, self._taken_over, acknowledge)
        except TimeoutError:
            if not limit.expired():
                raise
            await self.on_failure(command, DeadlineExceeded("the time for this request ran out"))
        except BrokerUnavailable:
            raise
        except ChoirError as error:
            await self.on_failure(command, error)

    def _emit_return(self, command: Generate, why: str) -> None:
        log.warning("an adopted task goes back", request_id=command.request_id, why=why)

    async def _keep(self, acknowledge: str | None) -> None:
        """Says that an adopted task is in work, so that it is not delivered to anybody."""
        while True:
            await self._send_word(acknowledge, Msg.Ack.Progress)
            await asyncio.sleep(HEARTBEAT_S)

    async def _send_word(self, acknowledge: str | None, word: bytes) -> None:
        if acknowledge is None:
            return
        try:
            await self._mesh.client.publish(acknowledge, word)
        except nats.errors.Error as error:
            log.warning("a delivery could not be acknowledged", why=str(error) or type(error).__name__)

    # --- coming and going ---------------------------------------------------------------

    def open_soon(self) -> None:
        """Begins to pull, unless it does already, or the place was left."""
        if self._opening is None and not self._closed:
            self._opening = asyncio.create_task(self._open(), name="open the pipeline")

    async def _open(self) -> None:
        await self._endpoints.start()
        await self._endpoints.add(subjects.count_tokens(self._plan.model), CountTokens, self._count)
        await self._endpoints.add(subjects.tokenizer(self._plan.model), Tokenize, self._tokenize)
        await self._loop.start()
        self.is_open = True
        self._mesh.changed()

    async def _count(self, request: CountTokens, caller: Caller) -> None:
        await caller.send(await asyncio.to_thread(self._generator.count, request.messages, request.tools))

    async def _tokenize(self, request: Tokenize, caller: Caller) -> None:
        await caller.send(await asyncio.to_thread(self._generator.tokenize, request))

    async def close(self, *, drain: bool) -> None:
        """Takes nothing more. With `drain` what is in work is finished, otherwise it is left to others."""
        self._closed = True
        self.is_open = False
        if self._opening is not None:
            await self._opening
            if not drain:
                self._generator.displace()
            await asyncio.gather(self._loop.stop(), self._leave_adopted(DRAIN_PATIENCE_S if drain else 0.0))
            await self._endpoints.stop()
        await self._leave_adopted(0.0)
        self._generator.displace()

    async def _leave_adopted(self, patience_s: float) -> None:
        """Waits so long for the tasks that were taken over; those that are not done then are left to
        others."""
        tasks = list(self._adopted.values())
        if tasks and patience_s > 0:
            await asyncio.wait(tasks, timeout=patience_s)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def mark_unfresh(self) -> None:
        """The connection is lost: what comes from now on may have been worked on before."""
        self._loop.mark_unfresh()

    async def resume(self) -> None:
        """The connection is back."""
        if self.is_open:
            await self._loop.resume()

    def served(self) -> ServedModel:
        """The entry of the model in the lease."""
        return ServedModel(
            name=self._plan.model,
            backend=BACKEND,
            slots=self._plan.slots,
            busy=min(self._plan.slots, self.in_work),
            context_tokens=self._plan.context_tokens,
            file=self._model.name,
            size_bytes=self._size_bytes,
            quantisation=self._quantisation,
            tokens_per_s=self._generator.tokens_per_s(),
            capabilities=self._generator.capabilities,
            description=f"a pipeline of {len(self._plan.stages)} stages",
        )
