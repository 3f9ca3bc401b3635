"""Stages joined by bytes say what the unsplit engine says, whatever is lost on the way."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from schemas.sampling import Sampling
from services.engine import ChatMessage, Engine, Finished
from services.engine.tests.variants import DEMO_MODELS, demo_model, write_variant
from services.shard_stage.tests.line import CONTEXT_TOKENS, SLOTS, Line, text_of

QUESTIONS = [f"What is the capital of {place}?" for place in ("France", "Japan", "Peru", "Kenya")] + [
    "What is 17 plus 25?",
    "Name a planet.",
    "Who wrote Hamlet?",
    "What colour is the sky?",
]
GREEDY = Sampling(max_tokens=16)
RANDOM = Sampling(max_tokens=16, temperature=1.1, seed=3)


def engine_says(model: Path, questions: list[str], sampling: Sampling) -> list[Finished]:
    with Engine.load(model, slots=SLOTS, context_tokens=CONTEXT_TOKENS, threads=1) as engine:
        return [engine.generate([ChatMessage("user", question)], sampling) for question in questions]


@pytest.fixture(scope="module")
def six_layers(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The Gemma demo model with two of its layers twice: its four can be cut in one place only."""
    path = tmp_path_factory.mktemp("m") / "six.gguf"
    return write_variant(demo_model("gemma"), path, layers=[0, 1, 0, 1, 2, 3])


@contextmanager
def line(model: Path, folder: Path, stages: int, **options: object) -> Iterator[Line]:
    opened = Line(model, folder, stages, **options)
    try:
        yield opened
    finally:
        opened.close()


@pytest.mark.parametrize("stages", [1, 2, 3])
@pytest.mark.parametrize("name", DEMO_MODELS)
def test_texts_are_those_of_the_engine(name: str, stages: int, six_layers: Path, tmp_path: Path) -> None:
    model = six_layers if (name, stages) == ("gemma", 3) else demo_model(name)
    expected = [finished.text for finished in engine_says(model, QUESTIONS, GREEDY)]
    with line(model, tmp_path, stages) as pipeline:
        alone = pipeline.submit(QUESTIONS[0], GREEDY)
        pipeline.pump()
        together = [pipeline.submit(question, GREEDY) for question in QUESTIONS]
        pipeline.pump()
        assert text_of(alone) == expected[0]
        assert [text_of(flow) for flow in together] == expected
