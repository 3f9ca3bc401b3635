"""A stage that holds a whole model, in this process: how it comes, goes, and shares its slots."""

from __future__ import annotations

import asyncio
import gc
import threading
import weakref
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from nats.aio.client import Client

from infra.demo_models.bench_model import write_bench_model
from infra.testing.mesh import enqueue, eventually, generate, open_mesh, queue_is_empty
from schemas import subjects
from schemas.nodes.lease import ServedModel
from schemas.pipelines.plan import PipelinePlan, StageHeld
from schemas.pipelines.stage_wire import Start
from schemas.pipelines.stages import SequenceStart
from schemas.replies import Result
from schemas.requests.sampling import Sampling
from services.chassis.context import ServiceContext
from services.chassis.nats.connection import connection_options
from services.chassis.settings import MeshSection
from services.shard_stage.handover.assignment import Assignment, Handover
from services.shard_stage.handover.journal import UnfinishedSequence
from services.shard_stage.probe.capability import ModelSource, open_source
from services.shard_stage.probe.slice_cache import SliceCache
from services.shard_stage.settings import StageModelSection
from services.shard_stage.stage_runtime import StageRuntime
from services.shard_stage.tests.helpers.line import SLOTS, plan_of
from services.tasks.plan_store import PlanStore

LONG = Sampling(max_tokens=100)


@pytest.fixture
def mesh_models() -> tuple[str, ...]:
    return ("alpha",)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two narrow layers of random weights, that generate until they are told to stop."""
    return write_bench_model(tmp_path_factory.mktemp("runtime") / "two.gguf", layers=2, width=64)


@pytest.fixture(scope="module")
def source(model: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[ModelSource, SliceCache]:
    slices = SliceCache(tmp_path_factory.mktemp("slices"))
    return open_source(StageModelSection(name="alpha", path=model), slices, threads=1), slices


@pytest.fixture
def mesh(connection: Client) -> ServiceContext:
    return open_mesh(connection, "shard_stage", "stage-0")


def plan_for(source: ModelSource) -> PipelinePlan:
    return plan_of(source.path, 1, sha256=source.shardable.sha256)


@asynccontextmanager
async def post_at(
    mesh: ServiceContext, url: str, source: tuple[ModelSource, SliceCache]
) -> AsyncIterator[StageRuntime]:
    """A stage at work; a pipeline of one."""
    faults: list[BaseException] = []
    runtime = StageRuntime(
        mesh,
        Assignment(plan_for(source[0]), 0),
        source[0],
        source[1],
        PlanStore(mesh.client, mesh.identity, lambda _model, _plan: None),
        threads=1,
        hop_ms=0.1,
        connection_options=lambda events: connection_options(MeshSection(url=url), mesh.identity, events),
        on_failure=faults.append,
    )
    try:
        await runtime.start(Handover())
        yield runtime
    finally:
        await runtime.stop()
    assert not faults


async def served(runtime: StageRuntime) -> ServedModel:
    """What it says of its model, once it serves it."""
    return await eventually(runtime.served)


async def test_llama_cpp_is_freed_only_after_the_step_at_hand(
    mesh: ServiceContext,
    mesh_url: str,
    source: tuple[ModelSource, SliceCache],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("services.shard_stage.transport.inference_thread.JOIN_TIMEOUT_S", 0.1)
    running, go_on = threading.Event(), threading.Event()

    def step() -> None:
        running.set()
        go_on.wait()

    async with post_at(mesh, mesh_url, source) as runtime:
        await served(runtime)
        context = runtime._context
        assert context is not None
        runtime._thread.run_soon(step)
        await asyncio.to_thread(running.wait)
    assert context.context.handle is not None and context.weights.handle is not None
    go_on.set()
    await eventually(lambda: context.context.handle is None and context.weights.handle is None)


async def test_a_place_that_is_left_before_its_stages_have_agreed_takes_no_work(
    mesh: ServiceContext,
    mesh_url: str,
    source: tuple[ModelSource, SliceCache],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Its model is freed: llama.cpp would read it nevertheless, and end the process."""
    begun, gone = asyncio.Event(), asyncio.Event()

    async def beat(_runtime: StageRuntime) -> None:
        begun.set()
        await gone.wait()

    monkeypatch.setattr(StageRuntime, "beat", beat)
    async with post_at(mesh, mesh_url, source) as runtime:
        await begun.wait()
    gone.set()
    assert runtime._aligning is not None
    await asyncio.wait([runtime._aligning])
    runtime._open_if_all_are_ready()
    assert runtime._intake is not None
    assert runtime._intake._opening is None
    assert runtime._intake.adopt([UnfinishedSequence(1, left_sequence(0))]) == []
    assert not runtime._intake.adopted


async def test_what_a_stage_left_behind_is_collected_when_the_next_one_begins(
    mesh: ServiceContext, mesh_url: str, source: tuple[ModelSource, SliceCache]
) -> None:
    async with post_at(mesh, mesh_url, source) as runtime:
        await served(runtime)
        left = weakref.ref(runtime)
    del runtime
    async with post_at(mesh, mesh_url, source):
        assert left() is None
    assert gc.get_freeze_count() == 0


async def test_never_more_slots_are_busy_than_there_are(
    mesh: ServiceContext, mesh_url: str, source: tuple[ModelSource, SliceCache]
) -> None:
    """Neither with tasks of another stage 0 beside those that are pulled, nor with texts that are stored."""
    await leave_sequences(mesh, plan_for(source[0]), SLOTS)
    for number in range(3 * SLOTS):
        await enqueue(mesh, generate(f"r{number}", sampling=LONG))
    told: list[int] = []
    live: list[StageHeld] = []
    async with post_at(mesh, mesh_url, source) as runtime:

        async def done() -> bool:
            model = runtime.served()
            if model is not None:
                told.append(model.busy)
                live.append(runtime.held())
            assert runtime._intake is not None
            assert runtime._intake.in_work <= SLOTS
            return await queue_is_empty(mesh.client)

        await eventually(done)
        assert runtime.held().live_tokens == 0
    assert max(told) <= SLOTS
    # And the lease says of how many tokens texts in work are, and what one takes to be read
    assert any(held.live_tokens and held.prompt_token_ms for held in live)


def left_sequence(number: int) -> SequenceStart:
    """The start of a sequence that another stage 0 has begun."""
    command = generate(f"left{number}", sampling=LONG)
    return SequenceStart(request_id=command.request_id, sampling=LONG, prompt_tokens=1, command=command)


async def leave_sequences(mesh: ServiceContext, plan: PipelinePlan, count: int) -> None:
    """Writes the starts of sequences into the journal, as a stage 0 does that dies then."""
    for number in range(count):
        start = Start(1, plan.number, number + 1, 0, left_sequence(number).to_bytes())
        await mesh.client.publish(subjects.stage(plan.number, 0), start.to_bytes())

    async def stored() -> bool:
        info = await mesh.client.jetstream().stream_info(subjects.ACTIVATIONS_STREAM)
        return info.state.messages == count

    await eventually(stored)


async def test_a_schema_that_no_message_carries_is_refused_with_its_name(
    mesh: ServiceContext,
    mesh_url: str,
    source: tuple[ModelSource, SliceCache],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    schema = {"enum": ["left"], "description": "x" * 70_000}
    async with post_at(mesh, mesh_url, source) as runtime:
        await served(runtime)
        monkeypatch.setattr(type(runtime._thread), "carried", 64 * 1024)
        await enqueue(mesh, generate("r1", sampling=Sampling(json_schema=schema)))

        async def result() -> Result | None:
            stored = await mesh.storage.last(subjects.RESULTS_STREAM, subjects.result("r1"))
            return Result.model_validate_json(stored.data) if stored is not None else None

        found = await eventually(result)
    assert found.error is not None and found.error.code == "payload_too_large"
    assert found.error.field == "sampling.json_schema"
