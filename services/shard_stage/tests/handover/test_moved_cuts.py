"""The cut of a running pipeline follows what its stages measure, and no text notices.

The stages are real, and so are their slices; how long a layer takes is told to them, for the machine of the
tests has no core to spare.
"""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from nats.aio.client import Client
from nats.aio.msg import Msg

from infra.demo_models.bench_model import write_bench_model
from infra.testing.mesh import eventually
from infra.testing.plugin import SpawnService
from schemas import subjects
from schemas.events import ANY_EVENT, CutMoved
from schemas.pipelines.plan import CutMove, PipelinePlan, PipelineSummary
from schemas.replies import TokenChunk
from schemas.requests.sampling import Sampling
from services.cli.views.tables.pipeline_tables import pipeline_lines
from services.client.client import Choir
from services.shard_stage.pipeline.first_stage import LEAST_PREFIX
from services.shard_stage.tests.helpers.pipeline_mesh import MODEL, READY_DEADLINE_S, PipelineMesh
from services.shard_stage.tests.helpers.slow_stage import slow
from services.shard_stage.tests.pipeline.test_line import engine_says

pytestmark = pytest.mark.long

PROMPTS = [f"Tell me about number {number}." for number in range(4)]
LONG = Sampling(max_tokens=120)
SHORT = Sampling(max_tokens=8)
TURNS = ["The giraffe is tall. " * 6, "The giraffe is tall. " * 6 + "And the hen?"]
"""Of a conversation: the second begins like the first."""
SLOW_STAGE = [sys.executable, "-m", "services.shard_stage.tests.helpers.slow_stage"]
LAYERS = 24
LAYER_MS = 0.4
LEAST_GAIN = 0.1
MOVING = {
    "pipeline_rebalance": True,
    "pipeline_look_interval_s": 0.1,
    "pipeline_rebalance_window_s": 0.3,
    "pipeline_rebalance_rest_s": 0.5,
}


@pytest.fixture
def mesh_models() -> tuple[str, ...]:
    return ("alpha",)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """24 narrow layers of random weights, that generate until they are told to stop."""
    return write_bench_model(tmp_path_factory.mktemp("model") / "narrow.gguf", layers=LAYERS, width=64)


@pytest.fixture(scope="module")
def undisturbed(model: Path) -> list[str]:
    """What the unsplit engine says."""
    return [finished.text for finished in engine_says(model, PROMPTS, LONG)]


async def told_moves(connection: Client) -> Moves:
    """The moves that are told of from now on."""
    moves = Moves()
    await connection.subscribe(subjects.event("router", "cut_moved"), cb=moves.on_event)
    await connection.flush()
    return moves


class Moves:
    """The moves that were told of."""

    def __init__(self) -> None:
        self.events: list[CutMoved] = []

    async def on_event(self, msg: Msg) -> None:
        event = ANY_EVENT.validate_json(msg.data)
        assert isinstance(event, CutMoved)
        self.events.append(event)


@asynccontextmanager
async def load(mesh: PipelineMesh, undisturbed: list[str]) -> AsyncIterator[None]:
    """Several streams at once, one text after the other in each, while the context is open; and that every
    one of these is the undisturbed one. In the first stream that is read as it comes."""
    going = True
    ask = [read_along, *[asked] * (len(PROMPTS) - 1)]

    async def stream(number: int) -> int:
        count = 0
        while going:
            text = await ask[number](mesh, PROMPTS[number], f"stream-{number}-{count}")
            assert text == undisturbed[number]
            count += 1
        return count

    streams = asyncio.gather(*(stream(number) for number in range(len(PROMPTS))))
    try:
        yield
    finally:
        going = False
        counts = await asyncio.wait_for(streams, READY_DEADLINE_S)
    assert all(counts)


async def asked(mesh: PipelineMesh, prompt: str, request_id: str) -> str | None:
    """The text of a request."""
    return (await mesh.ask(prompt, LONG, request_id)).text


async def read_along(mesh: PipelineMesh, prompt: str, request_id: str) -> str | None:
    """The text of a request, which has to be what was streamed."""
    streamed, result = "", None
    async with Choir(mesh.url) as client:
        options = LONG.model_dump()
        async for reply in client.ask_stream(prompt, model=MODEL, request_id=request_id, **options):
            if isinstance(reply, TokenChunk):
                streamed += reply.text
            else:
                result = reply
    assert result is not None and streamed == result.text
    return result.text


async def pipeline_mesh(
    connection: Client, url: str, spawn: SpawnService, model: Path, cache: Path, *names: str, **router: Any
) -> PipelineMesh:
    """Stages whose layers take LAYER_MS, and a router that moves cuts soon."""
    mesh = PipelineMesh(spawn, connection, url, model, cache, router={**MOVING, **router})
    for name in names:
        slow(cache, name, LAYER_MS)
        mesh.start(name, command=SLOW_STAGE)
    for name in names:
        await mesh.instances[name].wait_ready(connection, READY_DEADLINE_S)
    return mesh


async def cut_is(mesh: PipelineMesh, *ends: range) -> PipelinePlan:
    """Waits until the layers of each stage end within these ranges; the plan."""

    async def there() -> PipelinePlan | None:
        plan = await mesh.now()
        return plan if all(end in span for end, span in zip(plan.ends, ends, strict=False)) else None

    return await eventually(there, READY_DEADLINE_S)


async def shown(mesh: PipelineMesh) -> PipelineSummary:
    """The pipeline as `choir models` has it."""
    async with Choir(mesh.url) as client:
        (pipeline,) = await client.pipelines()
    return pipeline


def move_to(plan: PipelinePlan, *ends: int) -> PipelinePlan:
    """The next epoch of a plan, in which the stages make ready for another cut."""
    move = CutMove(
        at_s=time.time(), ends_before=plan.ends, ends=ends, slowest_ms=2, predicted_ms=1, gain=1, rest_s=3600
    )
    return plan.model_copy(update={"epoch": plan.epoch + 1, "since_epoch": 1, "moving": move})


async def test_a_cut_is_moved_while_texts_are_generated_and_they_stay_what_they_are(
    connection: Client,
    mesh_url: str,
    spawn_service: SpawnService,
    model: Path,
    undisturbed: list[str],
    tmp_path: Path,
) -> None:
    """Here the move is ordered; why there should be one is another matter."""
    mesh = PipelineMesh(spawn_service, connection, mesh_url, model, tmp_path / "slices", router=MOVING)
    moves = await told_moves(connection)
    await mesh.start_all("one", "two")
    await mesh.place("one", "two", ends=(1, LAYERS))
    # Given a conversation, whose second turn finds its first in the slots of the stages
    expected = [finished.text for finished in engine_says(model, TURNS, SHORT)]
    turns = [await mesh.ask(turn, SHORT, f"before-{number}") for number, turn in enumerate(TURNS)]
    assert [turn.text for turn in turns] == expected
    assert turns[1].answers[0].prompt_tokens_reused >= LEAST_PREFIX
    # When the cut moves while texts are generated
    async with load(mesh, undisturbed):
        await mesh.decoding(len(PROMPTS))
        await mesh.write("alpha", move_to(await mesh.now(), 12, LAYERS).to_bytes())
        plan = await cut_is(mesh, range(12, 13))
    # Then all of them are what the unsplit model says, and the move is told and shown
    assert plan.epoch >= 3 and plan.moving is None  # one more for each stage that a busy host kept silent
    (event,) = await eventually(lambda: moves.events)
    assert (event.layers_before, event.layers) == ((1, 23), (12, 12)) and 3 <= event.epoch <= plan.epoch
    pipeline = await shown(mesh)
    assert [stage.end_layer for stage in pipeline.stages] == [12, LAYERS]
    assert pipeline.moved is not None and pipeline.moved.moves == 1
    assert "moved once" in pipeline_lines([pipeline])[1].plain
    # And of the conversation one turn is read whole, as stages have other layers; the next finds it again
    again = [await mesh.ask(turn, SHORT, f"after-{number}") for number, turn in enumerate(reversed(TURNS))]
    assert [turn.text for turn in again] == expected[::-1]
    assert again[0].answers[0].prompt_tokens_reused == 0
    assert again[1].answers[0].prompt_tokens_reused >= LEAST_PREFIX


@pytest.mark.soak
async def test_an_unbalanced_start_is_balanced_under_load(
    connection: Client,
    mesh_url: str,
    spawn_service: SpawnService,
    model: Path,
    undisturbed: list[str],
    tmp_path: Path,
) -> None:
    mesh = await pipeline_mesh(connection, mesh_url, spawn_service, model, tmp_path / "slices", "one", "two")
    moves = await told_moves(connection)
    await mesh.place("one", "two", ends=(1, LAYERS))

    async with load(mesh, undisturbed):
        plan = await cut_is(mesh, range(10, 15))
        await eventually(lambda: moves.events)

    assert moves.events[0].layers_before == (1, LAYERS - 1)
    assert plan.moved is not None and plan.moved.gain >= LEAST_GAIN
    assert plan.moved.live_tokens and plan.moved.lost_s and plan.moved.gained_s
    assert plan.moved.gained_s > plan.moved.lost_s


@pytest.mark.soak
async def test_a_busy_host_loses_layers_and_gets_them_back(
    connection: Client,
    mesh_url: str,
    spawn_service: SpawnService,
    model: Path,
    undisturbed: list[str],
    tmp_path: Path,
) -> None:
    slices = tmp_path / "slices"
    mesh = await pipeline_mesh(connection, mesh_url, spawn_service, model, slices, "one", "two")
    await mesh.place("one", "two", ends=(12, LAYERS))

    async with load(mesh, undisturbed):
        slow(slices, "two", 3 * LAYER_MS)
        await cut_is(mesh, range(16, LAYERS))
        slow(slices, "two", LAYER_MS)
        await cut_is(mesh, range(10, 15))


@pytest.mark.soak
@pytest.mark.parametrize("moment", ["while the stages make ready", "when the cut has moved"])
@pytest.mark.parametrize("victim", [0, 1])
async def test_a_stage_that_is_killed_during_a_move_costs_no_text(
    connection: Client,
    mesh_url: str,
    spawn_service: SpawnService,
    model: Path,
    undisturbed: list[str],
    tmp_path: Path,
    victim: int,
    moment: str,
) -> None:
    mesh = PipelineMesh(spawn_service, connection, mesh_url, model, tmp_path / "slices", router=MOVING)
    await mesh.start_all("one", "two", "standby")
    await mesh.place("one", "two", ends=(1, LAYERS))

    async with load(mesh, undisturbed):
        await mesh.decoding(len(PROMPTS))
        await mesh.write("alpha", move_to(await mesh.now(), 12, LAYERS).to_bytes())
        if moment == "when the cut has moved":
            await cut_is(mesh, range(12, 13))
        mesh.instances[["one", "two"][victim]].kill()

        async def replaced() -> bool:
            plan = await mesh.now()
            return plan.stages[victim].instance == "standby" and plan.moving is None

        await eventually(replaced, READY_DEADLINE_S)
        await mesh.decoding(len(PROMPTS))


@pytest.mark.soak
async def test_a_switched_off_router_moves_nothing(
    connection: Client,
    mesh_url: str,
    spawn_service: SpawnService,
    model: Path,
    undisturbed: list[str],
    tmp_path: Path,
) -> None:
    mesh = await pipeline_mesh(
        connection,
        mesh_url,
        spawn_service,
        model,
        tmp_path / "slices",
        "one",
        "two",
        pipeline_rebalance=False,
    )
    await mesh.place("one", "two", ends=(1, LAYERS))

    async with load(mesh, undisturbed):
        await eventually(lambda: layers_are_measured(mesh), READY_DEADLINE_S)
        await mesh.decoding(len(PROMPTS))

    assert (await mesh.now()).epoch == 1


async def layers_are_measured(mesh: PipelineMesh) -> bool:
    return all(stage.layer_ms for stage in (await shown(mesh)).stages)
