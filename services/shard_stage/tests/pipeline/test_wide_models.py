"""Models of real widths, whose prompts are longer than a message between stages."""

from __future__ import annotations

from pathlib import Path

import pytest
from nats.aio.client import Client

from infra.demo_models.bench_model import write_bench_model
from infra.testing.plugin import SpawnService
from schemas.errors import ModelUnusable
from schemas.pipelines.activations import Dtype, Frame
from schemas.pipelines.stage_wire import unpack
from schemas.requests.sampling import Sampling
from services.engine import ChatMessage, Engine
from services.shard_stage.tests.helpers.line import text_of
from services.shard_stage.tests.helpers.pipeline_mesh import PipelineMesh
from services.shard_stage.tests.pipeline.test_line import engine_says, line
from services.shard_stage.transport.messages import MESSAGE_BYTES, check_width

LAYERS = 5
SMALLEST_CARRIED = 64 * 1024
"""The least max_payload that a broker can be given."""
SHORT = Sampling(max_tokens=6)
PROMPTS = [
    "The quick brown fox jumps over the lazy dog. " * 4,
    "Pack my box with five dozen jugs. " * 5,
    "Hi!",
]


@pytest.fixture
def mesh_models() -> tuple[str, ...]:
    return ("alpha",)


@pytest.fixture(scope="module")
def wide(tmp_path_factory: pytest.TempPathFactory) -> dict[int, Path]:
    """Five layers of random weights by their width, which is that of models of 1 and 8 billion parameters."""
    folder = tmp_path_factory.mktemp("wide")
    return {
        width: write_bench_model(folder / f"{width}.gguf", layers=LAYERS, width=width, lean=True)
        for width in (2048, 4096)
    }


@pytest.mark.parametrize(
    ("width", "stages"),
    [(2048, 2), (2048, 3), (2048, 4), (2048, 5), (4096, 2), (4096, 3), (4096, 4), (4096, 5)],
)
def test_prompts_longer_than_a_message_are_answered_as_by_the_engine(
    wide: dict[int, Path], width: int, stages: int, tmp_path: Path
) -> None:
    model = wide[width]
    expected = [finished.text for finished in engine_says(model, PROMPTS, SHORT)]
    with line(model, tmp_path, stages) as pipeline:
        sequences = [pipeline.submit(prompt, SHORT) for prompt in PROMPTS]
        pipeline.pump()
        assert [text_of(sequence) for sequence in sequences] == expected
        sent = [message for messages in pipeline.sent for message in messages]
        frames = [item for message in pipeline.sent[-1] for item in unpack(message)]
    assert max(map(len, sent)) <= MESSAGE_BYTES
    assert max(item.count for item in frames if isinstance(item, Frame)) < len(sequences[0].prompt)


@pytest.mark.parametrize("stages", [2, 3])
def test_a_request_larger_than_a_message_is_answered_and_kept_in_the_journal(
    wide: dict[int, Path], stages: int, tmp_path: Path
) -> None:
    schema = {"enum": ["left", "right"], "description": "x" * (MESSAGE_BYTES + 1000)}
    large = Sampling(max_tokens=16, json_schema=schema)
    with line(wide[2048], tmp_path, stages) as pipeline:
        sequence = pipeline.submit("Which way?", large)
        pipeline.pump()
        assert text_of(sequence) in ('"left"', '"right"')
    assert max(map(len, pipeline.sent[0])) > MESSAGE_BYTES


@pytest.mark.parametrize("width", [2048, pytest.param(4096, marks=pytest.mark.soak)])
async def test_three_stages_answer_a_long_prompt_at_once(
    connection: Client,
    mesh_url: str,
    spawn_service: SpawnService,
    wide: dict[int, Path],
    width: int,
    tmp_path: Path,
) -> None:
    """Processes, a broker, and no second epoch: nothing is lost on the way."""
    prompt = "The five boxing wizards jump quickly, and the jay, pig, fox, zebra and my wolves quack. " * 7
    model, context_tokens = wide[width], 1024
    with Engine.load(model, slots=1, context_tokens=context_tokens, threads=1) as engine:
        expected = engine.generate([ChatMessage("user", prompt)], SHORT).text
    mesh = PipelineMesh(
        spawn_service, connection, mesh_url, model, tmp_path / "slices", context_tokens=context_tokens
    )
    await mesh.start_all("stage-a", "stage-b", "stage-c")
    await mesh.place("stage-a", "stage-b", "stage-c")

    result = await mesh.ask(prompt, SHORT, "long")

    assert result.text == expected
    assert (await mesh.now()).epoch == 1


@pytest.mark.parametrize(("width", "dtype"), [(16_384, Dtype.F32), (32_768, Dtype.F16)])
def test_a_model_too_wide_for_the_messages_of_the_broker_is_refused_with_the_way_out(
    width: int, dtype: Dtype
) -> None:
    check_width(width, dtype, 2 * SMALLEST_CARRIED)
    with pytest.raises(ModelUnusable, match="raise max_payload"):
        check_width(width, dtype, SMALLEST_CARRIED)
