"""The runtime of a stage: from the plan that names this instance to the one that does not.

Whenever the plan has a new epoch the stages agree anew on where they are: each stops what it is doing, tells
in its beats how many tokens of each live sequence it holds, and stage 0, when it has heard of all, feeds
every sequence on from there.
"""

from __future__ import annotations

import asyncio
import gc
import statistics
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import nats.errors

from schemas import subjects
from schemas.errors import BrokerUnavailable
from schemas.events import StageStepped
from schemas.nodes.lease import ServedModel
from schemas.pipelines.plan import PipelinePlan, StageHeld
from schemas.pipelines.stages import StageBeat
from services.chassis.context import ServiceContext
from services.chassis.logs import get_logger
from services.chassis.nats.connection import ConnectionEvents
from services.engine.batching.batch_size import BatchSizeTuner
from services.engine.decode.stage_context import StageContext
from services.engine.model.model import Model
from services.shard_stage.handover.assignment import Assignment, Handover
from services.shard_stage.handover.journal import Journal
from services.shard_stage.handover.loading import load_slice
from services.shard_stage.handover.log_reader import client_for_reading, read_items
from services.shard_stage.handover.replay import Replay
from services.shard_stage.intake.intake import Intake
from services.shard_stage.intake.pipeline_generator import PipelineGenerator
from services.shard_stage.pipeline.drafts import PROPOSERS
from services.shard_stage.pipeline.first_stage import FirstStage
from services.shard_stage.pipeline.later_stage import LaterStage
from services.shard_stage.pipeline.rest import Rest
from services.shard_stage.pipeline.sequence_state import SequenceState
from services.shard_stage.pipeline.step_executor import StepExecutor
from services.shard_stage.pipeline.step_stats import Steps, StepStats
from services.shard_stage.probe.capability import ModelSource
from services.shard_stage.probe.slice_cache import SliceCache
from services.shard_stage.transport.inference_thread import InferenceThread
from services.shard_stage.transport.messages import check_width
from services.tasks.plan_store import PlanStore

EVENT_INTERVAL_S = 1.0
KEPT_STEP_TIMES = 32
KEPT_RATES = 5
"""The live rate is of so many intervals."""

log = get_logger("shard_stage.runtime")


class StageRuntime:
    """One stage at work. Everything here runs on the service's loop; the stage itself on its thread."""

    def __init__(
        self,
        mesh: ServiceContext,
        assignment: Assignment,
        source: ModelSource,
        slices: SliceCache,
        book: PlanStore,
        *,
        threads: int,
        hop_ms: float,
        connection_options: Callable[[ConnectionEvents], Mapping[str, Any]],
        on_failure: Callable[[BaseException], None],
        loaded: StageContext | None = None,
    ) -> None:
        """`on_failure` is called on this loop when the thread has ended by a fault. `loaded` is the slice of
        this place, where that was loaded before; whoever made it hands it over."""

        def failed(error: BaseException) -> None:
            self._loop.call_soon_threadsafe(on_failure, error)

        self.assignment = assignment
        self._mesh = mesh
        self._source = source
        self._slices = slices
        self._book = book
        self._threads = threads
        self._hop_ms = hop_ms
        self._loop = asyncio.get_running_loop()
        events = ConnectionEvents()
        events.on_reconnect(self._reconnected)
        self._connection = events
        self._stats, self._tuner = StepStats(), BatchSizeTuner()
        self._options = connection_options(events)
        self._thread = InferenceThread(self._options, self._stats, failed)
        self._stage: FirstStage | LaterStage | None = None
        self._context = loaded
        self._intake: Intake | None = None
        self._cells: dict[int, int] = {}
        self._aligned_epoch = 0
        self._aligning: asyncio.Task[None] | None = None
        self._heard: dict[int, StageBeat] = {}
        self._open_epoch = 0
        self._renewing: asyncio.Task[bool] | None = None
        self._step_ms: deque[float] = deque(maxlen=KEPT_STEP_TIMES)
        self._rates: deque[float] = deque(maxlen=KEPT_RATES)
        self._told_s = time.monotonic()
        self._told_drops: dict[str, int] = {}
        self._rest = Rest()
        self._executor: StepExecutor | None = None

    @property
    def plan(self) -> PipelinePlan:
        """The plan as of now."""
        return self.assignment.plan

    @property
    def ready(self) -> bool:
        """Whether this stage has come to terms with the plan's epoch."""
        return self._aligned_epoch == self.plan.epoch

    @property
    def step_lasts_s(self) -> float:
        """For how long the step at hand has been running."""
        return self._executor.step_lasts_s if self._executor is not None else 0.0

    @property
    def is_first(self) -> bool:
        """Whether this is stage 0."""
        return self.assignment.stage == 0

    # --- coming and going ---------------------------------------------------------------

    async def start(self, inheritance: Handover) -> None:
        """Loads the slice, rebuilds what its predecessor held, and takes part from then on.

        Raises ModelUnusable where the slice cannot be loaded.
        """
        path = None
        if self._context is None:
            path = await asyncio.to_thread(
                self._slices.slice_of,
                self._source.content,
                self._source.shardable.sha256,
                self.assignment.layers,
            )
        self._thread.start()
        await self._thread.run(self._thread.connect)
        await self._thread.call(partial(self._load, path))
        gc.collect()
        gc.freeze()  # what is there now stays: no collection has to look at it between two tokens
        try:
            await self._rebuild(inheritance)
        except BrokerUnavailable as error:
            log.warning("the log cannot be replayed, sequences are computed again", why=error.message)
        assert self._stage is not None
        stage, plan = self._stage, self.plan
        await self._thread.run(
            lambda: self._thread.drive(stage, plan.number, self.assignment.stage, len(plan.stages))
        )
        self._align_soon()

    def follow(self, assignment: Assignment) -> None:
        """The plan has a new epoch, and this instance the same place in it."""
        if assignment.plan.epoch > self.plan.epoch:
            self.assignment = assignment
            self._heard.clear()
            if self._stage is not None:
                self._align_soon()

    async def stop(self, *, drain: bool = False) -> None:
        """Leaves the place: with `drain` after what is in work, otherwise at once; others go on with it."""
        if self._intake is not None:
            await self._intake.close(drain=drain)
        if self._aligning is not None:
            self._aligning.cancel()
        ended = await asyncio.to_thread(self._thread.stop)
        self._connection.closing()
        if ended:
            await asyncio.to_thread(self._free)
        else:
            log.warning(
                "a step still runs: its memory is freed when the step ends", stage=self.assignment.stage
            )
            threading.Thread(target=self._free_when_ended, name="free stage", daemon=True).start()
        gc.unfreeze()  # what this place has left behind can be collected

    def _free(self) -> None:
        if self._context is not None:
            self._context.close()

    def _free_when_ended(self) -> None:
        """llama.cpp reads weights and cells for as long as it evaluates a step."""
        self._thread.join()
        self._free()

    def _load(self, path: Path | None) -> None:
        """On the thread: weights and cells from a slice's file, unless they were loaded before."""
        plan, stage = self.plan, self.assignment.stage
        if path is not None:
            self._context = load_slice(path, self.assignment, self._threads, self._source.gpu_layers)
        assert self._context is not None
        context, weights = self._context, self._context.weights
        self.assignment.check(context)
        executor = StepExecutor(context, plan, stage)
        if len(plan.stages) > 1:
            check_width(plan.width, executor.dtype, self._thread.carried)
        if stage:
            self._stage = LaterStage(executor, self._tuner, self._stats)
        elif isinstance(weights, Model):
            self._stage = FirstStage(
                executor,
                weights,
                self._tuner,
                self._stats,
                self._hop_ms,
                carried=self._thread.carried,
                proposer=PROPOSERS[plan.wanted.draft] if plan.wanted.draft else None,
            )
            generator = PipelineGenerator(self._thread, self._stage, weights, plan.context_tokens, plan.model)
            source = self._source
            self._intake = Intake(self._mesh, plan, generator, source.path, weights.header, source.size_bytes)
        self._executor = executor

    # --- rebuilding ---------------------------------------------------------------------

    async def _rebuild(self, inheritance: Handover) -> None:
        if isinstance(self._stage, FirstStage):
            await self._adopt(inheritance, self._stage)
        elif isinstance(self._stage, LaterStage):
            stage = self._stage
            await self._thread.run(lambda: self._replay(inheritance, stage))

    async def _replay(self, inheritance: Handover, stage: LaterStage) -> None:
        """On the thread: fills the cells from the frames that were sent to this stage."""
        assert self._executor is not None
        replay = Replay(self._executor, stage.slots, inheritance.live)
        subject = subjects.stage(self.plan.number, self.assignment.stage)
        async with client_for_reading(self._options) as client:
            async for item in read_items(client, subject, inheritance.log_from_s):
                replay.take(item)
        replay.finish()

    async def _adopt(self, inheritance: Handover, stage: FirstStage) -> None:
        """Takes up the sequences that the journal says have not ended."""
        assert self._intake is not None
        journal = Journal(self.plan.number)
        subject = subjects.stage(self.plan.number, 0)
        async for item in read_items(self._mesh.client, subject, inheritance.log_from_s):
            journal.take(item)
        sequences = self._intake.adopt(journal.left[-self.plan.slots :])
        # With a new cut no stage has cells of them: all is computed again together, and not here before.
        held = self.plan.since_epoch is not None
        for sequence in sequences:
            await self._thread.call(partial(stage.adopt, sequence, fill=held))

    # --- agreeing on where all are ------------------------------------------------------

    def _align_soon(self) -> None:
        if self._aligning is None or self._aligning.done():
            self._aligning = asyncio.create_task(self._align(), name="align")

    async def _align(self) -> None:
        """Brings the stage to the plan's epoch, and tells of it."""
        while not self.ready:
            plan = self.plan
            self._cells = await self._thread.call(partial(self._begin_epoch, plan))
            self._aligned_epoch = plan.epoch
        await self.beat()
        self._open_if_all_are_ready()
        self._mesh.changed()

    def _begin_epoch(self, plan: PipelinePlan) -> dict[int, int]:
        """On the thread, between two steps."""
        assert self._stage is not None
        self._stage.begin_epoch(plan)
        return self._stage.cells()

    def hear(self, beat: StageBeat) -> None:
        """Another stage's beat, or one's own."""
        if beat.epoch == self.plan.epoch:
            self._rest.heard(beat)
        if beat.epoch == self.plan.epoch and beat.ready and beat.stage:
            self._heard.setdefault(beat.stage, beat)
            self._open_if_all_are_ready()

    def _open_if_all_are_ready(self) -> None:
        plan = self.plan
        others = range(1, len(plan.stages))
        if not self.is_first or not self.ready or self._open_epoch == plan.epoch:
            return
        if all(stage in self._heard for stage in others):
            self._open_epoch = plan.epoch
            self._rest.begin(len(plan.stages))
            beats = [self._heard[stage] for stage in others]
            self._thread.run_soon(partial(self._open, plan.epoch, beats))
            if self._intake is not None:
                self._intake.open_soon()

    def _open(self, epoch: int, beats: list[StageBeat]) -> None:
        """On the thread: stage 0 begins to feed, unless the epoch is over by now."""
        assert self._executor is not None
        if isinstance(self._stage, FirstStage) and self._executor.plan.epoch == epoch:
            speculates = all(beat.speculates for beat in beats)
            self._stage.open([beat.cells for beat in beats], speculates=speculates)

    # --- what is told -------------------------------------------------------------------

    async def beat(self, *, first: bool = False) -> None:
        """Tells the other stages that this one is alive, and how far it is."""
        plan = self.plan
        feeding = self._stage if isinstance(self._stage, FirstStage) else None
        live = feeding.live if feeding is not None else ()
        beat = StageBeat(
            pipeline=plan.number,
            epoch=plan.epoch,
            stage=self.assignment.stage,
            instance=self._mesh.identity.instance,
            ready=self.ready,
            cells=self._cells if self.ready else {},
            idle=self._thread.rests,
            progress=self._stats.progress,
            live=tuple(sequence.id for sequence in live),
            oldest_began_at_s=self._oldest(live),
            first=first,
            speculates=True,
        )
        try:
            await self._mesh.client.publish(subjects.stage_signal(plan.number), beat.to_bytes())
        except nats.errors.Error as error:
            log.warning("a beat could not be sent", why=str(error) or type(error).__name__)

    def _oldest(self, live: Iterable[SequenceState]) -> float | None:
        """When the oldest of these began, by the broker's clock, as it stamps the log."""
        began_at_s = min((sequence.began_at_s for sequence in live), default=None)
        return None if began_at_s is None else began_at_s - (self._mesh.clock.host_ahead_s or 0.0)

    def watch(self) -> None:
        """To be called often: begins anew where something was lost, and tells what was done."""
        stage = self._stage
        if stage is None:
            return
        now_s = time.monotonic()
        if now_s - self._told_s >= EVENT_INTERVAL_S:
            steps, since_s, self._told_s = self._stats.take(), self._told_s, now_s
            self._rates.append(steps.tokens / (now_s - since_s))
            self._emit_steps(steps)
            self._emit_drops(stage)
        if stage.lost and self.ready:
            self.begin_anew("something that was sent between stages is missing")
        elif isinstance(stage, FirstStage) and self._open_epoch == self.plan.epoch and self._stalls(stage):
            self.begin_anew("a token is waited for, and no stage has anything to do: something was lost")

    def _stalls(self, stage: FirstStage) -> bool:
        """However long a step takes, nothing is lost as long as some stage is at it."""
        return self._rest.lost(stage.waits_for_tokens)

    def _emit_steps(self, steps: Steps) -> None:
        if not steps.steps:
            return
        self._step_ms.append(steps.compute_ns / steps.steps / 1e6)
        self._mesh.events.publish(
            StageStepped,
            pipeline=self.plan.model,
            stage=self.assignment.stage,
            epoch=self.plan.epoch,
            batch_size=steps.batch_size,
            tokens=steps.tokens,
            compute_ns=steps.compute_ns,
            hop_ns=steps.hop_ns,
            waiting_ns=steps.waiting_ns,
            steps=steps.steps,
            requests=tuple(sorted(steps.requests)),
        )

    def _emit_drops(self, stage: FirstStage | LaterStage) -> None:
        drops = dict(stage.drops)
        if drops != self._told_drops:
            self._told_drops = drops
            log.info("was sent what it did not take", stage=self.assignment.stage, **drops)

    def begin_anew(self, why: str) -> None:
        """Has all stages agree anew, unless that is under way."""
        if self._renewing is None or self._renewing.done():
            self._rest.begin(len(self.plan.stages))
            self._renewing = asyncio.create_task(self._book.begin_anew(self.plan, why), name="begin anew")

    async def _reconnected(self) -> None:
        """On the thread: frames may have been lost meanwhile."""
        epoch = self.plan.epoch
        self._loop.call_soon_threadsafe(self._begin_anew_in, epoch)

    def _begin_anew_in(self, epoch: int) -> None:
        if epoch == self.plan.epoch:
            self.begin_anew("a stage has lost its connection for a while")

    # --- the lease ----------------------------------------------------------------------

    def held(self, prepared: range | None = None) -> StageHeld:
        """The entry of this place in the lease, with the slice that the instance has at hand for the next."""
        return StageHeld(
            model=self.plan.model,
            epoch=self.plan.epoch,
            stage=self.assignment.stage,
            first_layer=self.assignment.layers.start,
            end_layer=self.assignment.layers.stop,
            ready=self.ready,
            step_ms=statistics.median(self._step_ms) if self._step_ms else None,
            tokens_per_s=statistics.fmean(self._rates) if self._rates else None,
            times=self._stats.recent.told(),
            prepared=(prepared.start, prepared.stop) if prepared is not None else None,
            prompt_token_ms=self._tuner.prompt_token_ms if self._tuner.measured else None,
            live_tokens=self._stage.live_tokens if isinstance(self._stage, FirstStage) else 0,
        )

    def served(self) -> ServedModel | None:
        """The model, once the whole pipeline is there; to the mesh this is just another agent."""
        if self._intake is None or not self._intake.is_open:
            return None
        return self._intake.served()

    def cancel(self, request_id: str) -> None:
        """Nobody waits for this request any more."""
        if self._intake is not None:
            self._intake.cancel(request_id)
        elif isinstance(self._stage, LaterStage):
            self._stage.hang_up(request_id)

    async def look_for_cancelled(self) -> None:
        """In case a cancellation was missed."""
        if self._intake is not None:
            await self._intake.look_for_cancelled()

    def mark_unfresh(self) -> None:
        """The service's connection is lost."""
        if self._intake is not None:
            self._intake.mark_unfresh()

    async def resume(self) -> None:
        """The service's connection is back."""
        if self._intake is not None:
            await self._intake.resume()
