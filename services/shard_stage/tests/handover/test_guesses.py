"""Stages on a real broker guess ahead, and one is killed meanwhile: texts are what they are without."""

from __future__ import annotations

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
from infra.testing.stand_ins.knowing_stage import tell
from schemas import subjects
from schemas.pipelines.activations import Frame, Speculation
from schemas.pipelines.plan import Shard
from schemas.pipelines.stage_wire import unpack
from schemas.requests.sampling import Sampling
from services.shard_stage.tests.helpers.line import Line, text_of
from services.shard_stage.tests.helpers.pipeline_mesh import MODEL, READY_DEADLINE_S, PipelineMesh

pytestmark = pytest.mark.long

PROMPTS = [f"Tell me about number {number}." for number in range(3)]
STAGES = ("stage-a", "stage-b", "stage-c")
CONTEXT_TOKENS = 512
GREEDY = Sampling(max_tokens=300)
RANDOM = Sampling(max_tokens=300, temperature=1.1, seed=3)
GUESSING: dict[str, Any] = {"wanted": Shard(model=MODEL, assign=STAGES, draft="lookup")}
KNOWING = [sys.executable, "-m", "infra.testing.stand_ins.knowing_stage"]


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
    line = Line(model, folder, 2, context_tokens=CONTEXT_TOKENS)
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
    mesh = PipelineMesh(spawn_service, connection, mesh_url, model, cache, context_tokens=CONTEXT_TOKENS)
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
    async with killing(mesh, victim) as sent:
        result = await mesh.ask(PROMPTS[0], sampling, "load")
    assert begun(sent)
    assert result.text == known[0][1]
    plan = await mesh.now()
    assert plan.stages[STAGES.index(victim)].instance == "standby" and plan.epoch > 1


def begun(sent: list[Speculation]) -> bool:
    """Whether some guesses were on their way, right ones and wrong ones."""
    return len(sent) > 12 and max(speculation.attempt for speculation in sent) > 1


@asynccontextmanager
async def killing(mesh: PipelineMesh, victim: str) -> AsyncIterator[list[Speculation]]:
    """Kills a stage as soon as guesses have begun; what the second stage was sent of them."""
    found: list[Speculation] = []

    async def on_message(msg: Msg) -> None:
        frames = [item for item in unpack(msg.data) if isinstance(item, Frame)]
        found.extend(frame.speculation for frame in frames if frame.speculation is not None)
        if begun(found) and not killed:
            killed.append(victim)
            mesh.instances[victim].kill()

    killed: list[str] = []
    subscription = await mesh.connection.subscribe(subjects.stage(1, 1), cb=on_message)
    await mesh.connection.flush()
    yield found
    await subscription.unsubscribe()
