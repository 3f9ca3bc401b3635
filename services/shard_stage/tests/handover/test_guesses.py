"""Stages on a real broker guess ahead, and one is killed meanwhile: texts are what they are without."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from nats.aio.client import Client
from nats.aio.msg import Msg

from infra.demo_models.bench_model import write_bench_model
from infra.testing.plugin import SpawnService
from schemas import subjects
from schemas.pipelines.activations import Frame
from schemas.pipelines.plan import Shard
from schemas.pipelines.stage_wire import unpack
from schemas.replies import Result
from schemas.requests.sampling import Sampling
from services.chassis.tests.mesh import eventually
from services.shard_stage.tests.knowing_stage import tell
from services.shard_stage.tests.line import Line, text_of
from services.shard_stage.tests.pipeline_mesh import MODEL, READY_DEADLINE_S, PipelineMesh

pytestmark = pytest.mark.long

PROMPTS = [f"Tell me about number {number}." for number in range(3)]
STAGES = ("stage-a", "stage-b", "stage-c")
GREEDY = Sampling(max_tokens=120)
RANDOM = Sampling(max_tokens=120, temperature=1.1, seed=3)
GUESSING: dict[str, Any] = {"wanted": Shard(model=MODEL, assign=STAGES, draft="lookup")}
KNOWING = [sys.executable, "-m", "services.shard_stage.tests.knowing_stage"]


@pytest.fixture
def mesh_models() -> tuple[str, ...]:
    return (MODEL,)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six layers of random weights, that generate until they are told to stop."""
    return write_bench_model(tmp_path_factory.mktemp("model") / "six.gguf", layers=6, width=256)


def undisturbed(model: Path, folder: Path, sampling: Sampling) -> list[tuple[list[int], str]]:
    """The tokens of each prompt and its text, and the text, as stages in one process have them without a
    guess."""
    line = Line(model, folder, 2)
    try:
        sequences = [line.submit(prompt, sampling) for prompt in PROMPTS]
        line.pump()
        return [(list(sequence.tokens), text_of(sequence)) for sequence in sequences]
    finally:
        line.close()


@pytest.fixture
async def mesh(
    connection: Client, mesh_url: str, spawn_service: SpawnService, model: Path, tmp_path: Path
) -> PipelineMesh:
    """Three stages and a standby, that know what they are told."""
    cache = tmp_path / "slices"
    cache.mkdir()
    tell(cache, [], 0)
    mesh = PipelineMesh(spawn_service, connection, mesh_url, model, cache)
    for name in (*STAGES, "standby"):
        mesh.start(name, command=KNOWING)
    for process in mesh.instances.values():
        await process.wait_ready(connection, READY_DEADLINE_S)
    await mesh.place(*STAGES, **GUESSING)
    return mesh


@pytest.mark.soak
@pytest.mark.parametrize("sampling", [GREEDY, RANDOM], ids=["greedy", "random"])
async def test_texts_of_real_stages_are_the_same_however_often_guesses_are_right(
    mesh: PipelineMesh, model: Path, tmp_path: Path, sampling: Sampling
) -> None:
    known = undisturbed(model, tmp_path, sampling)
    for probability in (0.0, 0.6, 0.8, 1.0):
        tell(tmp_path / "slices", [tokens for tokens, _ in known], probability)
        alone = await mesh.ask(PROMPTS[0], sampling, f"alone-{probability:.0%}".replace("%", ""))
        together = await mesh.ask_all(PROMPTS, sampling, f"together-{probability:.0%}".replace("%", ""))
        assert alone.text == known[0][1]
        assert [result.text for result in together] == [text for _, text in known]


@pytest.mark.soak
@pytest.mark.parametrize("sampling", [GREEDY, RANDOM], ids=["greedy", "random"])
@pytest.mark.parametrize("victim", STAGES)
async def test_a_stage_is_killed_while_tokens_are_guessed_and_the_text_goes_on(
    mesh: PipelineMesh, model: Path, tmp_path: Path, victim: str, sampling: Sampling
) -> None:
    known = undisturbed(model, tmp_path, sampling)
    tell(tmp_path / "slices", [tokens for tokens, _ in known], 0.8)
    async with guessed_frames(mesh) as sent:
        asking = asyncio.create_task(mesh.ask(PROMPTS[0], sampling, "load"))
        await eventually(lambda: begun(sent, asking), READY_DEADLINE_S)
        assert not asking.done(), asking.result()
        mesh.instances[victim].kill()
        result: Result = await asking
    assert result.text == known[0][1]
    plan = await mesh.now()
    assert plan.stages[STAGES.index(victim)].instance == "standby" and plan.epoch > 1


async def begun(sent: list[Frame], asking: asyncio.Task[Result]) -> bool:
    """Whether some guesses were on their way, right ones and wrong ones; or there is an outcome."""
    attempts = [frame.speculation.attempt for frame in sent if frame.speculation is not None]
    return asking.done() or (len(attempts) > 12 and max(attempts) > 1)


@asynccontextmanager
async def guessed_frames(mesh: PipelineMesh) -> AsyncIterator[list[Frame]]:
    """The frames of guesses that the second stage is sent."""
    found: list[Frame] = []

    async def on_message(msg: Msg) -> None:
        frames = [item for item in unpack(msg.data) if isinstance(item, Frame)]
        found.extend(frame for frame in frames if frame.speculation is not None)

    subscription = await mesh.connection.subscribe(subjects.stage(1, 1), cb=on_message)
    yield found
    await subscription.unsubscribe()
