"""The task intake of stage 0: pulls tasks for its model like any agent, while the pipeline is there."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from pathlib import Path

from schemas import subjects
from schemas.commands import CountTokens, Generate, Tokenize
from schemas.nodes import ServedModel
from schemas.pipelines import PipelinePlan
from services.chassis.context import ServiceContext
from services.chassis.nats.endpoints import Caller, Endpoints
from services.chassis.stopping import DRAIN_PATIENCE_S
from services.chassis.work.loop import WorkLoop
from services.engine.model.gguf_header import GgufHeader
from services.engine.model.quantisation import quantisation_of
from services.shard_stage.handover.journal import UnfinishedSequence
from services.shard_stage.intake.pipeline_generator import PipelineGenerator
from services.shard_stage.intake.pipeline_worker import PipelineWorker
from services.shard_stage.pipeline.sequence_state import SequenceState

DESCRIPTION = "The first stage of a pipeline"
BACKEND = "pipeline"


class TaskIntake:
    """Opens once, when all stages were ready for the first time, and closes with the place."""

    def __init__(
        self,
        mesh: ServiceContext,
        plan: PipelinePlan,
        generator: PipelineGenerator,
        model: Path,
        header: GgufHeader,
    ) -> None:
        """`model` is the file that all slices are made of, `header` that of one of them."""
        self._model = model
        self._size_bytes = model.stat().st_size
        self._quantisation = quantisation_of(header)
        self._mesh = mesh
        self._plan = plan
        self._generator = generator
        self._worker = PipelineWorker(mesh, generator, self._share_slots)
        consumers = [subjects.generate_consumer(priority, plan.model) for priority in subjects.PRIORITIES]
        # A text may outlive its first stage many times: what others have begun is gone on with.
        self._work = WorkLoop(
            mesh,
            Generate,
            subjects.COMMANDS_STREAM,
            consumers,
            plan.slots,
            self._worker,
            quarantine=False,
        )
        self._endpoints = Endpoints(mesh.client, mesh.identity, DESCRIPTION)
        self._opening: asyncio.Task[None] | None = None
        self.is_open = False

    def adopt(self, left: Iterable[UnfinishedSequence]) -> list[SequenceState]:
        """Takes up what another stage 0 has left; the sequences that have to go on."""
        flows = []
        for sequence in left:
            flow = self._generator.adopt(sequence)
            if flow is not None:
                flows.append(flow)
            if sequence.start.command is not None:
                self._worker.adopt(sequence.start.command, sequence.start.acknowledge)
        self._share_slots()
        return flows

    def _share_slots(self) -> None:
        """What was taken over has slots of its own, and no more is pulled than there is room for."""
        self._work.slots = max(0, self._plan.slots - self._worker.adopted)

    def open_soon(self) -> None:
        """Begins to pull, unless it does already."""
        if self._opening is None:
            self._opening = asyncio.create_task(self._open(), name="open the pipeline")

    async def _open(self) -> None:
        await self._endpoints.start()
        await self._endpoints.add(subjects.count_tokens(self._plan.model), CountTokens, self._count)
        await self._endpoints.add(subjects.tokenizer(self._plan.model), Tokenize, self._tokenize)
        await self._work.start()
        self.is_open = True
        self._mesh.changed()

    async def _count(self, request: CountTokens, caller: Caller) -> None:
        await caller.send(await asyncio.to_thread(self._generator.count, request.messages, request.tools))

    async def _tokenize(self, request: Tokenize, caller: Caller) -> None:
        await caller.send(await asyncio.to_thread(self._generator.tokenize, request))

    async def close(self, *, drain: bool) -> None:
        """Takes nothing more. With `drain` what is in work is finished, otherwise it is left to others."""
        self.is_open = False
        if self._opening is not None:
            await self._opening
            if not drain:
                self._generator.displace()
            await asyncio.gather(self._work.stop(), self._worker.stop(DRAIN_PATIENCE_S if drain else 0.0))
            await self._endpoints.stop()
        await self._worker.stop(0.0)
        self._generator.displace()

    def served(self) -> ServedModel:
        """What the lease says of the model."""
        return ServedModel(
            name=self._plan.model,
            backend=BACKEND,
            slots=self._plan.slots,
            busy=min(self._plan.slots, self._work.busy + self._worker.adopted),
            context_tokens=self._plan.context_tokens,
            file=self._model.name,
            size_bytes=self._size_bytes,
            quantisation=self._quantisation,
            tokens_per_s=self._generator.tokens_per_s(),
            capabilities=self._generator.capabilities,
            description=f"a pipeline of {len(self._plan.stages)} stages",
        )

    def cancel(self, request_id: str) -> None:
        """Nobody waits for this request any more."""
        self._worker.cancel(request_id)

    def suspect(self) -> None:
        """The connection is lost: what comes from now on may have been worked on before."""
        self._work.suspect()

    async def resume(self) -> None:
        """The connection is back."""
        if self.is_open:
            await self._work.resume()
