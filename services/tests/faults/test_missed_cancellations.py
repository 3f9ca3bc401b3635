"""Who was cut off, or too slow to hear, when a request was cancelled does not go on with it for ever."""

from __future__ import annotations

import threading
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Protocol

import nats.errors
import pytest
from nats.aio.client import Client

from infra.demo_models.bench_model import write_bench_model
from infra.demo_models.checksums import sha256_of
from infra.testing.broker.cable import Cable, mesh_on_a_cable
from infra.testing.mesh import enqueue, eventually, gather, generate, open_mesh
from schemas import subjects
from schemas.errors import Cancelled
from schemas.replies import Result
from services.agent.service import Agent
from services.agent.settings import AgentSection
from services.aggregator.service import Aggregator
from services.aggregator.settings import AggregatorSection
from services.chassis.context import ServiceContext
from services.chassis.registry.lease import Load
from services.engine.decode.stage_context import StageContext
from services.shard_stage.service import ShardStage
from services.shard_stage.settings import StageSettings
from services.shard_stage.tests.helpers.line import plan_of
from services.summarizer.service import Summarizer
from services.summarizer.settings import SummarizerSection
from services.summarizer.tests.peers import chain, enqueue_chain

AN_HOUR_S = 3_600.0


class Service(Protocol):
    """What all of them have."""

    async def start(self, mesh: ServiceContext) -> None: ...
    async def stop(self) -> None: ...
    def load(self) -> Load: ...


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_bench_model(tmp_path_factory.mktemp("missed") / "two.gguf", layers=2, width=64)


@pytest.fixture
def steps_go_on(monkeypatch: pytest.MonkeyPatch) -> threading.Event:
    """While this is not set, a step of a stage takes as long as that."""
    go_on, evaluate = threading.Event(), StageContext.evaluate
    go_on.set()

    def evaluate_later(context: StageContext, *arguments: Any) -> Any:
        go_on.wait()
        return evaluate(context, *arguments)

    monkeypatch.setattr(StageContext, "evaluate", evaluate_later)
    return go_on


def service_of(kind: str, url: str, model: Path, folder: Path) -> Service:
    """A service of a kind, and for a stage the model of which it holds all layers."""
    match kind:
        case "agent":
            slow = {"name": "alpha", "reply": "late", "delay_ms": AN_HOUR_S * 1_000}
            fields = {"name": "slow", "backend": "instant", "models": [slow]}
            return Agent(AgentSection.model_validate(fields))
        case "aggregator":
            return Aggregator(AggregatorSection())
        case "summarizer":
            return Summarizer(SummarizerSection())
    offer = {"name": "alpha", "path": model, "context_tokens": 256}
    section = {"name": "stage-0", "models": [offer], "cache": folder, "threads": 1}
    return ShardStage(StageSettings.model_validate({"mesh": {"url": url}, "stage": section}))


async def place(client: Client, model: Path) -> None:
    """A pipeline of one stage."""
    plan = plan_of(model, 1, sha256=sha256_of(model))
    plans = await client.jetstream().key_value(subjects.PIPELINES_BUCKET)
    await plans.put(subjects.pipeline_key("alpha"), plan.to_bytes())


async def ask(kind: str, mesh: ServiceContext) -> None:
    """A request r1 for a service of a kind, which has an hour."""
    match kind:
        case "aggregator":
            await enqueue(mesh, gather("r1", ("alpha", "beta"), timeout_s=AN_HOUR_S))
        case "summarizer":
            await enqueue_chain(mesh, chain("r1", "alpha", "beta", timeout_s=AN_HOUR_S))
        case _:
            await enqueue(mesh, generate("r1", timeout_s=AN_HOUR_S))


async def cut_off(mesh: ServiceContext, way: Cable, meanwhile: Callable[[], Awaitable[None]]) -> None:
    await way.cut_from(mesh)
    await meanwhile()
    await way.mend()


async def too_slow(mesh: ServiceContext, _way: Cable, meanwhile: Callable[[], Awaitable[None]]) -> None:
    await meanwhile()
    subscription: Any = SimpleNamespace(subject=subjects.ALL_CANCELS)
    await mesh.connection.failed(nats.errors.SlowConsumerError(subjects.ALL_CANCELS, "", 1, subscription))


@pytest.mark.parametrize("missing", [cut_off, too_slow])
@pytest.mark.parametrize("kind", ["agent", "aggregator", "summarizer", "shard_stage"])
async def test_a_cancellation_that_was_missed_ends_the_work_all_the_same(
    kind: str,
    missing: Callable[[ServiceContext, Cable, Callable[[], Awaitable[None]]], Awaitable[None]],
    mesh_url: str,
    connection: Client,
    model: Path,
    steps_go_on: threading.Event,
    tmp_path: Path,
) -> None:
    asking, service = open_mesh(connection), service_of(kind, mesh_url, model, tmp_path)

    async def cancelled() -> None:
        """What the router stores; the word of it is heard by nobody."""
        result = Result.failed(generate("r1"), Cancelled("by its client"), time.time())
        await asking.storage.store_once(subjects.result("r1"), result.to_bytes())

    async with mesh_on_a_cable(mesh_url, kind, "stage-0") as (mesh, way):
        await service.start(mesh)
        try:
            # Given a service in the midst of a request that takes long
            if kind == "shard_stage":
                await place(connection, model)
                await eventually(lambda: service.load().models)
                steps_go_on.clear()
            await ask(kind, asking)
            await eventually(lambda: service.load().busy == 1)
            # When it does not hear that the request is cancelled
            await missing(mesh, way, cancelled)
            # Then it finds out, and is free for others
            await eventually(lambda: service.load().busy == 0)
        finally:
            steps_go_on.set()
            await service.stop()
