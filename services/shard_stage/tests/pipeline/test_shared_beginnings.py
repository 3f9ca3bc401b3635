"""What a prompt shares with an earlier text is in the cells of every stage, and is not sent again."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from infra.demo_models.bench_model import write_bench_model
from infra.testing.made_models.variants import demo_model
from schemas.pipelines.activations import Frame
from schemas.pipelines.stage_wire import unpack
from schemas.requests.sampling import Sampling
from services.shard_stage.pipeline.first_stage import LEAST_PREFIX
from services.shard_stage.pipeline.sequence_state import SequenceState
from services.shard_stage.tests.helpers.line import SLOTS, Line, text_of
from services.shard_stage.tests.pipeline.test_line import GREEDY, engine_says, line

BEGINNING = "Once upon a time there was a giraffe who lived near Paris, and everybody knew her well. "
QUESTIONS = [f"{BEGINNING}What did the {animal} say?" for animal in ("fox", "owl", "hare", "mouse")]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_bench_model(tmp_path_factory.mktemp("b") / "four.gguf", layers=4, width=64)


def says(pipeline: Line, question: str) -> SequenceState:
    sequence = pipeline.submit(question, GREEDY)
    pipeline.pump()
    return sequence


def rows_sent(pipeline: Line, sequence: SequenceState) -> int:
    """How many tokens of a sequence have been sent from stage 0 to the next."""
    items = [item for message in pipeline.sent[1] for item in unpack(message)]
    return sum(item.count for item in items if isinstance(item, Frame) and item.sequence == sequence.id)


def tokens_of(sequence: SequenceState) -> int:
    return len(sequence.prompt) + sequence.generated


def is_cancelled(sequence: SequenceState) -> bool:
    return sequence.finished is not None and sequence.finished.finish_reason == "cancelled"


@pytest.mark.parametrize("stages", [1, 3])
def test_of_a_prompt_that_begins_like_an_earlier_one_only_the_rest_is_read(
    model: Path, stages: int, tmp_path: Path
) -> None:
    expected = [finished.text for finished in engine_says(model, QUESTIONS, GREEDY)]
    with line(model, tmp_path, stages) as pipeline:
        sequences = [says(pipeline, question) for question in QUESTIONS]
        assert [text_of(sequence) for sequence in sequences] == expected
        first, *others = [sequence.finished for sequence in sequences if sequence.finished is not None]
        assert first.prefix_reused_tokens == 0
        assert all(finished.prefix_reused_tokens >= len(BEGINNING) for finished in others)
        if stages > 1:
            for sequence, finished in zip(sequences[1:], others, strict=True):
                assert (
                    rows_sent(pipeline, sequence) == tokens_of(sequence) - 1 - finished.prefix_reused_tokens
                )
        assert not any(stage.drops for stage in pipeline.later.values())


@pytest.mark.parametrize("victim", [1, 2])
def test_a_stage_that_is_lost_knows_nothing_of_earlier_texts_and_the_text_is_the_same(
    model: Path, victim: int, tmp_path: Path
) -> None:
    expected = [finished.text for finished in engine_says(model, QUESTIONS, GREEDY)]
    with line(model, tmp_path, 3) as pipeline:
        says(pipeline, QUESTIONS[0])
        sequence = pipeline.submit(QUESTIONS[1], GREEDY)
        pipeline.pump(9)
        assert sequence.prefix_reused and not sequence.finished
        pipeline.wires[victim].clear()
        pipeline.renew(victim)
        pipeline.replay(victim)
        pipeline.next_epoch()
        pipeline.open()
        pipeline.pump()
        after = [says(pipeline, question) for question in QUESTIONS[2:]]
        assert [text_of(one) for one in (sequence, *after)] == expected[1:]
        assert all(one.prefix_reused >= len(BEGINNING) for one in after)
        assert not any(stage.lost for stage in pipeline.later.values())


def test_the_stages_agree_on_what_is_kept_whoever_comes_and_goes(model: Path, tmp_path: Path) -> None:
    """Beginnings of many lengths, more texts than slots, and some that nobody waits for any more."""
    chance = random.Random(5)
    questions = [
        f"{BEGINNING[: chance.randrange(2 * LEAST_PREFIX)]} number {number}?" for number in range(4 * SLOTS)
    ]
    expected = [finished.text for finished in engine_says(model, questions, GREEDY)]
    with line(model, tmp_path, 3) as pipeline:
        sequences = []
        for number, question in enumerate(questions):
            sequences.append(pipeline.submit(question, GREEDY))
            if number % 3 == 0:
                pipeline.pump(chance.randrange(12))
            if number % 5 == 4:
                pipeline.first.cancel(sequences[-1 - chance.randrange(5)].id)
        pipeline.pump()
        assert all(sequence.finished for sequence in sequences)
        whole = [
            (sequence, text)
            for sequence, text in zip(sequences, expected, strict=True)
            if not is_cancelled(sequence)
        ]
        assert len(whole) >= 3 * SLOTS
        assert [text_of(sequence) for sequence, _ in whole] == [text for _, text in whole]
        assert any(sequence.prefix_reused for sequence, _ in whole)
        assert not any(stage.lost or stage.drops for stage in pipeline.later.values())


def test_a_model_with_sliding_windows_reads_every_prompt_whole(tmp_path: Path) -> None:
    """Cells before the window may be gone in some stage."""
    sampling = Sampling(max_tokens=8)
    expected = [finished.text for finished in engine_says(demo_model("gemma"), QUESTIONS[:2], sampling)]
    with line(demo_model("gemma"), tmp_path, 2) as pipeline:
        sequences = [pipeline.submit(question, sampling) for question in QUESTIONS[:2]]
        pipeline.pump()
        again = pipeline.submit(QUESTIONS[0], sampling)
        pipeline.pump()
        assert [text_of(sequence) for sequence in (*sequences, again)] == [*expected, expected[0]]
        assert not again.prefix_reused
