"""The stage service: what it offers to pipelines, and the stage that it holds of one of them."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field

from nats.aio.msg import Msg
from pydantic import ValidationError

from schemas import subjects
from schemas.errors import ChoirError, ErrorBody, GenerationFailed, ModelUnusable
from schemas.nodes.lease import NodeLease
from schemas.nodes.model_store import STORE_PREFIX
from schemas.pipelines.plan import PipelinePlan, StageOffer
from schemas.pipelines.stages import StageBeat
from services.chassis.blobs.range_source import open_kept
from services.chassis.context import ServiceContext
from services.chassis.logs import get_logger
from services.chassis.nats.bucket import Bucket, messages
from services.chassis.nats.connection import connection_options
from services.chassis.process.limits import cores, memory_available_bytes
from services.chassis.process.runner import EXIT_FAILED
from services.chassis.process.supervise import log_failure
from services.chassis.registry.lease import Load
from services.engine.model.devices import Devices, gpu_devices
from services.engine.model.devices import free_bytes as free_on
from services.engine.model.devices import total_bytes as total_on
from services.shard_stage.failure_detector import BEAT_INTERVAL_S, TICK_S, FailureDetector
from services.shard_stage.handover.assignment import Assignment, Handover, holds_place
from services.shard_stage.handover.next_slice import NextSlice
from services.shard_stage.probe.capability import ModelSource, open_kept_source, open_source
from services.shard_stage.probe.kept_model import KeptModel
from services.shard_stage.probe.latency_probe import measured_hop_ms
from services.shard_stage.probe.slice_cache import SliceCache
from services.shard_stage.settings import StageModelSection, StageSettings
from services.shard_stage.stage_runtime import StageRuntime
from services.shard_stage.transport.inference_thread import failure_of
from services.tasks.plan_store import PlanStore

SWITCH_INTERVAL_S = 0.0005
LAST_WORDS_S = 1.0
"""Time for the lease to be put."""

log = get_logger("shard_stage")


@dataclass
class Pipeline:
    """One pipeline: its plan, its live instances, and the sequences that stage 0 has told of."""

    detector: FailureDetector
    inheritance: Handover = field(default_factory=Handover)

    @property
    def plan(self) -> PipelinePlan:
        """The plan as of now."""
        return self.detector.plan

    def stage_of(self, instance: str) -> int | None:
        """The stage that an instance holds in it."""
        names = [stage.instance for stage in self.plan.stages]
        return names.index(instance) if instance in names else None


class ShardStage:
    """Holds one stage of a pipeline, or stands by for one. What it cannot use is said in its lease."""

    def __init__(self, settings: StageSettings, devices: Devices = gpu_devices) -> None:
        self._settings = settings
        self._section = settings.stage
        self._threads = self._section.threads or cores()
        gpus = devices() if self._section.gpu_layers else ()
        free_bytes = free_on(gpus) if gpus else memory_available_bytes()
        self._memory_bytes = self._section.memory_bytes or free_bytes
        self._gpu_bytes = total_on(gpus) if gpus else None
        self._slices = SliceCache(self._section.cache_folder)
        self._sources: dict[str, ModelSource] = {}
        self._pipelines: dict[str, Pipeline] = {}
        self._problem: ErrorBody | None = None
        self._failure: ErrorBody | None = None
        self._hop_ms = 0.0
        self._runtime: StageRuntime | None = None
        self._leaving: StageRuntime | None = None
        self._refused: tuple[str, int] | None = None
        self._changed = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []
        self._draining = False

    # --- life ---------------------------------------------------------------------------

    async def start(self, mesh: ServiceContext) -> None:
        """Measures what it has to offer, and takes the place that a plan has for it."""
        self._mesh = mesh
        self._next = NextSlice(self._slices, self._threads, self._memory_bytes, mesh.changed)
        # The inference thread asks for the interpreter at every tensor: by default it may wait 5 ms for it.
        sys.setswitchinterval(SWITCH_INTERVAL_S)
        for model in self._section.models:
            await self._open(model)
        self._hop_ms = await measured_hop_ms(mesh.client)
        self._book = PlanStore(mesh.client, mesh.identity, self._on_plan, mesh.clock.now)
        await mesh.cordon.start(mesh.connection)
        await mesh.client.subscribe(subjects.ALL_STAGE_SIGNALS, cb=self._on_beat)
        await mesh.client.subscribe(subjects.ALL_CANCELS, cb=self._on_cancel)
        mesh.connection.on_disconnect(self._disconnected)
        mesh.connection.on_reconnect(self._reconnected)
        mesh.connection.on_missed(subjects.bucket_updates(subjects.PIPELINES_BUCKET), self._book.reload)
        mesh.connection.on_reconnect(self._look_for_cancelled)
        mesh.connection.on_missed(subjects.ALL_CANCELS, self._look_for_cancelled)
        await self._book.start()
        await self._renew_own_places()
        await self._learn_who_works()
        self._tasks = [
            mesh.loops.start(self._keep_place(), "place"),
            mesh.loops.start(self._keep_time(), "time"),
        ]

    async def stop(self) -> None:
        """Finishes what is in work, and gives up what it holds."""
        self._draining = True
        for task in self._tasks[:1]:
            task.cancel()
        if self._runtime is not None:
            await self._runtime.stop(drain=True)
        for task in self._tasks:
            task.cancel()
        await self._next.close()

    async def _open(self, model: StageModelSection) -> None:
        try:
            source = await self._opened(model)
        except ChoirError as error:
            log.error("model cannot be offered", model=model.name, why=error.message)
            told = error.body()
            self._problem = told.model_copy(update={"message": f"{model.name}: {told.message}"})
        else:
            self._sources[model.name] = source

    async def _opened(self, model: StageModelSection) -> ModelSource:
        """A model of this host's disk, or one that other hosts keep. Raises its typed error."""
        name, gpu_layers = str(model.path), self._section.gpu_layers
        if not name.startswith(STORE_PREFIX):
            return await asyncio.to_thread(open_source, model, self._slices, self._threads, gpu_layers)
        kept = KeptModel(*await open_kept(self._mesh.client, name.removeprefix(STORE_PREFIX)))
        return await asyncio.to_thread(open_kept_source, model, kept, self._slices, self._threads, gpu_layers)

    async def _renew_own_places(self) -> None:
        """Plans of now that name this instance mean a process that is gone: the stages begin anew."""
        for pipeline in list(self._pipelines.values()):
            if pipeline.stage_of(self._mesh.identity.instance) is not None:
                await self._book.begin_anew(pipeline.plan, "a stage was started again")

    async def _learn_who_works(self) -> None:
        """Whoever told in its lease that it was ready in its place beats there, or is gone. Without that a
        stage that dies while a standby starts would be given the time of one that has not begun yet."""
        leases = Bucket(self._mesh.client, subjects.NODES_BUCKET, messages(NodeLease))
        for pipeline in list(self._pipelines.values()):
            for number, spec in enumerate(pipeline.plan.stages):
                with contextlib.suppress(ChoirError, ValidationError):
                    key = subjects.node_key(self._mesh.identity.service, spec.instance)
                    lease = (await leases.get(key)).value
                    if lease is not None and holds_place(lease, pipeline.plan, number):
                        pipeline.detector.works(number)

    # --- plans --------------------------------------------------------------------------

    def _on_plan(self, model: str, plan: PipelinePlan | None) -> None:
        if model not in self._sources:
            return
        known = self._pipelines.get(model)
        if plan is None:
            self._pipelines.pop(model, None)
        elif known is None or known.plan.number != plan.number:
            self._pipelines[model] = Pipeline(FailureDetector(plan, time.monotonic()))
        elif plan.epoch > known.plan.epoch:
            known.detector.follow(plan)
        if self._refused is not None and self._refused[0] == model:
            self._failure = None
        self._changed.set()

    def _assignment(self) -> Assignment | None:
        """The place that this instance ought to hold. If several plans name it, the one it holds, or the
        first."""
        found = [
            Assignment(pipeline.plan, stage)
            for pipeline in self._pipelines.values()
            if (stage := pipeline.stage_of(self._mesh.identity.instance)) is not None
        ]
        held = self._runtime.plan.model if self._runtime is not None else None
        found.sort(key=lambda assignment: (assignment.plan.model != held, assignment.plan.model))
        wanted = found[0] if found else None
        if wanted is not None and self._refused == (wanted.plan.model, wanted.plan.epoch):
            return None
        return wanted

    async def _keep_place(self) -> None:
        """Holds what the plans say, as they change."""
        while True:
            await self._changed.wait()
            self._changed.clear()
            wanted = self._assignment()
            runtime = self._runtime
            if runtime is not None and (wanted is None or not runtime.assignment.same_place(wanted)):
                log.warning("steps down", model=runtime.plan.model, stage=runtime.assignment.stage)
                self._runtime = None
                self._mesh.changed()
                await self._leave(runtime, wanted)
            if wanted is not None and self._runtime is not None:
                self._runtime.follow(wanted)
            elif wanted is not None:
                await self._take_place(wanted)
            elif self._runtime is None:
                await self._prepare()
            self._next.follow(wanted, self._sources.get(wanted.plan.model) if wanted is not None else None)

    async def _leave(self, runtime: StageRuntime, wanted: Assignment | None) -> None:
        """Ends a stage. Who only gets other layers of the same pipeline beats meanwhile: nobody is to take
        its place."""
        if wanted is not None and wanted.plan.number == runtime.plan.number:
            self._leaving = runtime
        try:
            await runtime.stop()
        finally:
            self._leaving = None

    async def _take_place(self, wanted: Assignment) -> None:
        source = self._sources[wanted.plan.model]
        self._runtime = runtime = StageRuntime(
            self._mesh,
            wanted,
            source,
            self._slices,
            self._book,
            threads=self._threads,
            hop_ms=self._hop_ms,
            connection_options=lambda events: connection_options(
                self._settings.mesh, self._mesh.identity, events
            ),
            on_failure=self._on_failure,
            loaded=self._next.take(wanted),
        )
        try:
            _check_source(source, wanted.plan)
            await runtime.beat(first=True)
            await runtime.start(self._pipelines[wanted.plan.model].inheritance)
        except ChoirError as error:
            await self._fail(runtime, error)
        else:
            first, last = wanted.layers[0], wanted.layers[-1]
            log.info(
                "holds a stage", model=wanted.plan.model, stage=wanted.stage, layers=f"{first} to {last}"
            )
            self._failure = None
            if wanted.plan.moved is not None:
                used = [range(stage.first_layer, stage.end_layer) for stage in wanted.plan.stages]
                await asyncio.to_thread(self._slices.forget_unused, wanted.plan.sha256, used)
        self._changed.set()

    async def _prepare(self) -> None:
        """A standby has the slices of every plan on its disk, unless they would have to come from another
        host: of those it fetches the ones that it is to hold."""
        for model, pipeline in list(self._pipelines.items()):
            source = self._sources[model]
            if source.shardable.sha256 != pipeline.plan.sha256 or source.kept is not None:
                continue
            for spec in pipeline.plan.stages:
                layers = range(spec.first_layer, spec.end_layer)
                with contextlib.suppress(ChoirError):
                    await asyncio.to_thread(
                        self._slices.slice_of, source.path, source.shardable.sha256, layers
                    )

    # --- failures -----------------------------------------------------------------------

    def _on_failure(self, error: BaseException) -> None:
        if self._runtime is not None and not self._draining:
            task = asyncio.create_task(self._fail(self._runtime, failure_of(error)), name="failed stage")
            task.add_done_callback(log_failure)
            self._tasks.append(task)

    async def _fail(self, runtime: StageRuntime, error: ChoirError) -> None:
        """This instance cannot hold its place: it tells the reason and stops, so that another is placed."""
        log.error(
            "a stage failed", model=runtime.plan.model, stage=runtime.assignment.stage, why=error.message
        )
        self._failure = error.body()
        self._refused = (runtime.plan.model, runtime.plan.epoch)
        if self._runtime is runtime:
            self._runtime = None
        self._mesh.changed()
        await runtime.stop()

    async def _end_stuck(self, runtime: StageRuntime) -> None:
        """A step cannot be broken off: this process says what has happened, and ends to be started anew. It
        falls silent in its place, so that another takes it."""
        stage, model = runtime.assignment.stage, runtime.plan.model
        reason = (
            f"a step of stage {stage} of {model} has taken more than {self._section.step_limit_s:g} s "
            "(step_limit_s): the process ends, to be started anew"
        )
        log.error("a step is stuck", model=model, stage=stage, why=reason)
        self._failure = GenerationFailed(reason).body()
        self._tasks[0].cancel()
        self._runtime = None
        self._mesh.changed()
        await asyncio.sleep(LAST_WORDS_S)
        logging.shutdown()
        os._exit(EXIT_FAILED)

    def _disconnected(self) -> None:
        if self._runtime is not None:
            self._runtime.mark_unfresh()

    async def _reconnected(self) -> None:
        """Beats and changes of plans were missed."""
        for pipeline in self._pipelines.values():
            pipeline.detector.excuse()
        await self._book.reload()
        if self._runtime is not None:
            await self._runtime.resume()

    # --- time ---------------------------------------------------------------------------

    async def _keep_time(self) -> None:
        """Beats, and takes places over that have fallen silent."""
        beat_at_s = 0.0
        while True:
            now_s = time.monotonic()
            runtime = self._runtime
            if self._leaving is not None and now_s >= beat_at_s:
                beat_at_s = now_s + BEAT_INTERVAL_S
                await self._leaving.beat()
            if runtime is not None:
                if runtime.step_lasts_s > self._section.step_limit_s:
                    await self._end_stuck(runtime)
                runtime.watch()
                if now_s >= beat_at_s:
                    beat_at_s = now_s + BEAT_INTERVAL_S
                    await runtime.beat()
            for pipeline, stage in () if self._mesh.cordon.holds else self._silent(now_s):
                if self._runtime is None and not self._draining and self._could_hold(pipeline.plan, stage):
                    await self._book.take_over(pipeline.plan, stage)
            await asyncio.sleep(TICK_S)

    def _silent(self, now_s: float) -> Iterator[tuple[Pipeline, int]]:
        for pipeline in list(self._pipelines.values()):
            silent = pipeline.detector.silent(now_s)
            if silent and pipeline.stage_of(self._mesh.identity.instance) is None:
                yield pipeline, silent[0]

    def _could_hold(self, plan: PipelinePlan, stage: int) -> bool:
        source = self._sources[plan.model].shardable
        need_bytes = Assignment(plan, stage).need_bytes(source)
        return source.sha256 == plan.sha256 and need_bytes <= self._memory_bytes

    # --- what is heard ------------------------------------------------------------------

    async def _on_beat(self, msg: Msg) -> None:
        pipeline = self._pipeline_of(msg.subject)
        if pipeline is None:
            return
        try:
            beat = StageBeat.read(msg.data)
        except ValidationError:
            log.warning("a beat cannot be read", subject=msg.subject)
            return
        pipeline.detector.heard(beat.stage, beat.instance, first=beat.first)
        if beat.stage == 0 and beat.epoch == pipeline.plan.epoch:
            since_s = beat.oldest_began_at_s or self._mesh.clock.now()
            pipeline.inheritance = Handover(frozenset(beat.live), since_s)
        if self._runtime is not None and self._runtime.plan.number == beat.pipeline:
            self._runtime.hear(beat)

    def _pipeline_of(self, subject: str) -> Pipeline | None:
        for pipeline in self._pipelines.values():
            if subject == subjects.stage_signal(pipeline.plan.number):
                return pipeline
        return None

    async def _on_cancel(self, msg: Msg) -> None:
        if self._runtime is not None:
            self._runtime.cancel(subjects.request_of(msg.subject))

    async def _look_for_cancelled(self) -> None:
        """Cancellations were missed."""
        if self._runtime is not None:
            await self._runtime.look_for_cancelled()

    # --- the lease ----------------------------------------------------------------------

    def load(self) -> Load:
        """Broken if not a single model can be offered, or the place that it was given cannot be held."""
        served = self._runtime.served() if self._runtime is not None else None
        problem = self._failure or (self._problem if not self._sources else None)
        return Load(
            state="ready" if problem is None else "broken",
            slots=served.slots if served is not None else 0,
            busy=served.busy if served is not None else 0,
            models=(served,) if served is not None else (),
            problem=problem,
            stage=self._offer(),
        )

    def _offer(self) -> StageOffer:
        return StageOffer(
            models=tuple(source.shardable for source in self._sources.values()),
            memory_bytes=self._memory_bytes,
            threads=self._threads,
            cores=cores(),
            hop_ms=self._hop_ms,
            held=self._runtime.held(self._next.ready) if self._runtime is not None else None,
            gpu_bytes=self._gpu_bytes,
        )


def _check_source(source: ModelSource, plan: PipelinePlan) -> None:
    """Raises ModelUnusable where the plan is for another file than the one that is here."""
    here = source.shardable
    if (here.sha256, here.architecture, here.layers) != (plan.sha256, plan.architecture, plan.layers):
        raise ModelUnusable(
            f"the plan of {plan.model} is for another file: SHA-256 {plan.sha256}, {plan.architecture} with "
            f"{plan.layers} layers; here are {here.sha256}, {here.architecture} with {here.layers}",
            field="sha256",
        )
