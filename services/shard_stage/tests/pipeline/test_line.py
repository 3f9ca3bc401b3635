"""Stages joined by bytes say what the unsplit engine says, whatever is lost on the way."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from infra.demo_models.bench_model import write_bench_model
from infra.testing.made_models.variants import DEMO_MODELS, demo_model, write_variant
from schemas.errors import GenerationFailed
from schemas.pipelines.activations import Dtype, Frame
from schemas.pipelines.stage_wire import unpack
from schemas.requests.chat import Tool
from schemas.requests.sampling import Sampling
from services.engine import Chat, ChatMessage, Engine, Finished
from services.shard_stage.pipeline.sequence_state import SequenceState
from services.shard_stage.tests.helpers.line import CONTEXT_TOKENS, EPOCH_S, SLOTS, Line, text_of

QUESTIONS = [f"What is the capital of {place}?" for place in ("France", "Japan", "Peru", "Kenya")] + [
    "What is 17 plus 25?",
    "Name a planet.",
    "Who wrote Hamlet?",
    "What colour is the sky?",
]
GREEDY = Sampling(max_tokens=16)
RANDOM = Sampling(max_tokens=16, temperature=1.1, seed=3)


def engine_says(model: Path, questions: list[str], sampling: Sampling) -> list[Finished]:
    """What the unsplit engine answers to each question."""
    return _engine_says(model, tuple(questions), sampling.model_dump_json())


@cache
def _engine_says(model: Path, questions: tuple[str, ...], sampling: str) -> list[Finished]:
    options = Sampling.model_validate_json(sampling)
    with Engine.load(model, slots=SLOTS, context_tokens=CONTEXT_TOKENS, threads=1) as engine:
        return [engine.generate([ChatMessage("user", question)], options) for question in questions]


@pytest.fixture(scope="module")
def six_layers(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The Gemma demo model with two of its layers twice: its four can be cut in one place only."""
    path = tmp_path_factory.mktemp("m") / "six.gguf"
    return write_variant(demo_model("gemma"), path, layers=[0, 1, 0, 1, 2, 3])


@contextmanager
def line(model: Path, folder: Path, stages: int, **options: Any) -> Iterator[Line]:
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
        assert [text_of(sequence) for sequence in together] == expected


@pytest.fixture(scope="module")
def bench_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four narrow layers of random weights, that generate until they are told to stop."""
    return write_bench_model(tmp_path_factory.mktemp("b") / "four.gguf", layers=4, width=64)


CONSTRAINED = [
    RANDOM,
    Sampling(max_tokens=16, temperature=0.9, seed=11, top_k=0, top_p=1.0),
    Sampling(max_tokens=16, grammar='root ::= [a-m ]+ "."'),
    Sampling(max_tokens=16, temperature=1.0, seed=5, json_schema={"enum": ["left", "right"]}),
    Sampling(max_tokens=16, stop=("a", "9")),
    Sampling(max_tokens=6, logprobs=3),
    Sampling(max_tokens=16, presence_penalty=1.5, frequency_penalty=0.5, logit_bias={97: 4.0}),
    Sampling(max_tokens=16, temperature=1.0, seed=5, repeat_penalty=1.8, min_p=0.02),
]


@pytest.mark.parametrize("sampling", CONSTRAINED, ids=range(len(CONSTRAINED)))
def test_the_last_stage_samples_as_the_engine_does(
    bench_model: Path, sampling: Sampling, tmp_path: Path
) -> None:
    expected = engine_says(bench_model, QUESTIONS[:4], sampling)
    with line(bench_model, tmp_path, 2) as pipeline:
        sequences = [pipeline.submit(question, sampling) for question in QUESTIONS[:4]]
        pipeline.pump()
        for sequence, wanted in zip(sequences, expected, strict=True):
            found = sequence.finished
            assert found is not None
            assert (found.text, found.finish_reason, found.stop_detail, found.stop_string) == (
                wanted.text,
                wanted.finish_reason,
                wanted.stop_detail,
                wanted.stop_string,
            )
            assert [token.token_id for token in found.logprobs] == [t.token_id for t in wanted.logprobs]
            for mine, theirs in zip(found.logprobs, wanted.logprobs, strict=True):
                assert mine.top[0].token_id == theirs.top[0].token_id
                assert abs(mine.logprob - theirs.logprob) < 1e-5


@pytest.mark.parametrize("sampling", CONSTRAINED[-2:], ids=["counted", "recent"])
def test_a_new_last_stage_knows_what_was_said_and_what_the_prompt_ended_with(
    bench_model: Path, sampling: Sampling, tmp_path: Path
) -> None:
    expected = [finished.text for finished in engine_says(bench_model, QUESTIONS[:4], sampling)]
    with line(bench_model, tmp_path, 2) as pipeline:
        sequences = [pipeline.submit(question, sampling) for question in QUESTIONS[:4]]
        pipeline.pump(9)
        pipeline.wires[1].clear()
        pipeline.renew(1)
        pipeline.replay(1)
        pipeline.next_epoch()
        pipeline.open()
        pipeline.pump()
        assert [text_of(sequence) for sequence in sequences] == expected


@pytest.mark.soak
def test_a_required_call_is_that_of_the_engine(bench_model: Path, tmp_path: Path) -> None:
    answer = {"enum": ["yes", "no"]}
    parameters = {"type": "object", "properties": {"answer": answer}, "required": ["answer"]}
    tool = Tool(name="say", parameters=parameters)
    with Engine.load(bench_model, slots=1, context_tokens=2 * CONTEXT_TOKENS, threads=1) as engine:
        chat = Chat([ChatMessage("user", "Hm?")], (tool,), "required")
        wanted = engine.generate(chat, Sampling(max_tokens=80))
    with line(bench_model, tmp_path, 2, context_tokens=2 * CONTEXT_TOKENS) as pipeline:
        sequence = pipeline.submit("Hm?", Sampling(max_tokens=80), tools=(tool,), tool_choice="required")
        pipeline.pump()
        assert sequence.finished is not None
        assert sequence.finished.calls == wanted.calls
    assert wanted.calls[0].arguments["answer"] in ("yes", "no")


@pytest.mark.parametrize("partition", ["layerwise", "tokenwise", "adaptive"])
def test_a_long_prompt_is_read_the_same_however_it_is_partitioned(
    bench_model: Path, partition: str, tmp_path: Path
) -> None:
    question = "word " * 30
    (expected,) = engine_says(bench_model, [question], GREEDY)
    with line(bench_model, tmp_path, 3) as pipeline:
        sequence = pipeline.submit(question, GREEDY, partition=partition)
        pipeline.pump()
        assert text_of(sequence) == expected.text
        frames = [
            item
            for message in pipeline.sent[1]
            for item in unpack(message)
            if isinstance(item, Frame) and item.count > 1
        ]
    assert sum(frame.count for frame in frames) == len(sequence.prompt)
    assert (len(frames) == 1) == (partition == "layerwise")


@pytest.mark.parametrize("victim", [1, 2])
@pytest.mark.parametrize("sampling", [GREEDY, RANDOM], ids=["greedy", "random"])
@pytest.mark.parametrize("turns", [1, 9, 20])
def test_a_later_stage_that_is_lost_at_any_moment_is_rebuilt_from_its_log(
    bench_model: Path, victim: int, sampling: Sampling, turns: int, tmp_path: Path
) -> None:
    expected = [finished.text for finished in engine_says(bench_model, QUESTIONS, sampling)]
    with line(bench_model, tmp_path, 3) as pipeline:
        sequences = [pipeline.submit(question, sampling) for question in QUESTIONS]
        pipeline.pump(turns)
        pipeline.wires[victim].clear()
        pipeline.renew(victim)
        pipeline.replay(victim)
        replayed = pipeline.later[victim].cells()
        pipeline.next_epoch()
        pipeline.open()
        pipeline.pump()
        assert [text_of(sequence) for sequence in sequences] == expected
    assert turns == 1 or any(replayed.values())


def test_without_a_log_the_sequences_are_computed_again(bench_model: Path, tmp_path: Path) -> None:
    expected = [finished.text for finished in engine_says(bench_model, QUESTIONS, GREEDY)]
    with line(bench_model, tmp_path, 2) as pipeline:
        sequences = [pipeline.submit(question, GREEDY) for question in QUESTIONS]
        pipeline.pump(9)
        pipeline.renew(1)
        pipeline.next_epoch()
        pipeline.open()
        pipeline.pump()
        assert [text_of(sequence) for sequence in sequences] == expected


def test_a_log_with_a_gap_is_replayed_up_to_it(bench_model: Path, tmp_path: Path) -> None:
    expected = [finished.text for finished in engine_says(bench_model, QUESTIONS[:2], GREEDY)]
    with line(bench_model, tmp_path, 2) as pipeline:
        sequences = [pipeline.submit(question, GREEDY) for question in QUESTIONS[:2]]
        pipeline.pump(8)
        pipeline.renew(1)
        del pipeline.sent[1][3]
        pipeline.replay(1)
        pipeline.next_epoch()
        pipeline.open()
        pipeline.pump()
        assert [text_of(sequence) for sequence in sequences] == expected


def test_frames_of_another_cut_are_not_replayed(bench_model: Path, tmp_path: Path) -> None:
    with line(bench_model, tmp_path, 2) as pipeline:
        pipeline.submit(QUESTIONS[0], GREEDY)
        pipeline.pump(6)
        pipeline.plan = pipeline.plan.model_copy(update={"epoch": 5, "since_epoch": 4})
        pipeline.renew(1)
        pipeline.replay(1)
        assert not any(pipeline.later[1].cells().values())


def test_a_text_that_is_lost_at_the_same_token_again_and_again_ends_in_an_error(
    bench_model: Path, tmp_path: Path
) -> None:
    with line(bench_model, tmp_path, 2) as pipeline:
        sequence = pipeline.submit(QUESTIONS[0], GREEDY)
        pipeline.pump(6)
        for _ in range(9):
            pipeline.next_epoch()
            pipeline.open()
        pipeline.pump()
        assert sequence.finished is not None
        assert isinstance(sequence.finished.error, GenerationFailed)


def test_epochs_that_follow_one_another_at_once_are_held_against_no_text(
    bench_model: Path, tmp_path: Path
) -> None:
    """As when a broker comes back, and each of many stages begins an epoch."""
    (expected,) = engine_says(bench_model, QUESTIONS[:1], GREEDY)
    with line(bench_model, tmp_path, 2) as pipeline:
        sequence = pipeline.submit(QUESTIONS[0], GREEDY)
        pipeline.pump(6)
        for _ in range(9):
            pipeline.next_epoch()
            pipeline.now_s -= EPOCH_S
            pipeline.open()
        pipeline.pump()
        assert text_of(sequence) == expected.text


def test_late_frames_of_an_old_epoch_are_counted_and_do_no_harm(bench_model: Path, tmp_path: Path) -> None:
    expected = [finished.text for finished in engine_says(bench_model, QUESTIONS, GREEDY)]
    with line(bench_model, tmp_path, 2) as pipeline:
        sequences = [pipeline.submit(question, GREEDY) for question in QUESTIONS]
        pipeline.pump(7)
        old = [list(messages) for messages in pipeline.sent]
        pipeline.next_epoch()
        pipeline.open()
        for stage, messages in enumerate(old):
            pipeline.wires[stage].extend(messages)
        pipeline.pump()
        assert [text_of(sequence) for sequence in sequences] == expected
        assert pipeline.later[1].drops["epoch"] > 0 and pipeline.first.drops["epoch"] > 0


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"sequence": 99}, "sequence"),
        ({"position": 200}, "position"),
        ({"position": 0}, "position"),
        ({"stage": 2}, "stage"),
        ({"epoch": 9}, "epoch"),
        ({"pipeline": 9}, "epoch"),
        ({"width": 32, "payload": bytes(4 * 32)}, "shape"),
        ({"dtype": Dtype.F16, "payload": bytes(2 * 64)}, "shape"),
    ],
)
def test_a_frame_that_does_not_fit_is_counted_and_dropped(
    bench_model: Path, change: dict[str, Any], reason: str, tmp_path: Path
) -> None:
    (expected,) = engine_says(bench_model, QUESTIONS[:1], GREEDY)
    with line(bench_model, tmp_path, 2) as pipeline:
        sequence = pipeline.submit(QUESTIONS[0], GREEDY)
        pipeline.pump(6)
        cells = pipeline.later[1].cells()[sequence.id]
        fields: dict[str, Any] = {
            "position": cells,
            "payload": bytes(4 * 64),
            "dtype": Dtype.F32,
            "width": 64,
        }
        fields |= {"epoch": 1, "pipeline": 7, "stage": 1, "sequence": sequence.id, "count": 1}
        before = sum(pipeline.later[1].drops.values())
        pipeline.wires[1].appendleft(Frame(**(fields | change)).to_bytes())
        pipeline.pump(1)
        assert pipeline.later[1].drops[reason] == 1 and sum(pipeline.later[1].drops.values()) == before + 1
        pipeline.pump()
        if pipeline.later[1].lost:
            pipeline.next_epoch()
            pipeline.open()
            pipeline.pump()
        assert text_of(sequence) == expected.text


def test_frames_of_half_the_size_give_nearly_always_the_same_text(tmp_path: Path) -> None:
    expected = [finished.text for finished in engine_says(demo_model("llama"), QUESTIONS, GREEDY)]
    with line(demo_model("llama"), tmp_path, 2, dtype="f16") as pipeline:
        sequences = [pipeline.submit(question, GREEDY) for question in QUESTIONS]
        pipeline.pump()
        same = sum(text_of(sequence) == text for sequence, text in zip(sequences, expected, strict=True))
    assert same >= len(QUESTIONS) - 1


def test_more_sequences_than_slots_wait_for_their_turn(bench_model: Path, tmp_path: Path) -> None:
    questions = [f"Question number {number}" for number in range(3 * SLOTS)]
    expected = [finished.text for finished in engine_says(bench_model, questions, GREEDY)]
    with line(bench_model, tmp_path, 2) as pipeline:
        sequences = [pipeline.submit(question, GREEDY) for question in questions]
        pipeline.pump()
        assert [text_of(sequence) for sequence in sequences] == expected
        assert not pipeline.later[1].cells()


def test_a_cancelled_sequence_gives_its_place_back_in_every_stage(bench_model: Path, tmp_path: Path) -> None:
    with line(bench_model, tmp_path, 3) as pipeline:
        sequence = pipeline.submit(QUESTIONS[0], GREEDY)
        pipeline.pump(6)
        pipeline.first.cancel(sequence.id)
        pipeline.pump()
        assert sequence.finished is not None and sequence.finished.finish_reason == "cancelled"
        assert not any(stage.cells() for stage in pipeline.later.values())


def left_by(pipeline: Line) -> SequenceState:
    """A sequence of the first question's, as a new stage 0 would take it up."""
    sequence = pipeline.submit(QUESTIONS[0], GREEDY)
    pipeline.first.close()
    return sequence


def test_a_sequence_that_ended_before_it_was_taken_up_is_not_generated(
    bench_model: Path, tmp_path: Path
) -> None:
    """Its task was found to be done while the journal was still being worked through."""
    with line(bench_model, tmp_path, 2) as pipeline:
        sequence = left_by(pipeline)
        sequence.generation.cancel()
        pipeline.first.cancel(sequence.id)
        pipeline.first.adopt(sequence)
        pipeline.next_epoch()
        pipeline.open()
        pipeline.pump()
        assert not pipeline.first.live
        assert sequence.finished is not None and sequence.finished.finish_reason == "cancelled"
        assert sequence.finished.generated_tokens == 0


def test_a_sequence_that_cannot_be_taken_up_ends_alone(
    bench_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (expected,) = engine_says(bench_model, QUESTIONS[:1], GREEDY)
    with line(bench_model, tmp_path, 2) as pipeline:
        broken, sound = left_by(pipeline), left_by(pipeline)
        with monkeypatch.context() as patched:
            patched.setattr(pipeline.contexts[-1], "evaluate", failing)
            pipeline.first.adopt(broken)
        pipeline.first.adopt(sound)
        pipeline.next_epoch()
        pipeline.open()
        pipeline.pump()
        assert broken.finished is not None and isinstance(broken.finished.error, GenerationFailed)
        assert text_of(sound) == expected.text


def test_a_log_that_llama_cpp_cannot_evaluate_is_computed_again(
    bench_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = [finished.text for finished in engine_says(bench_model, QUESTIONS, GREEDY)]
    with line(bench_model, tmp_path, 2) as pipeline:
        sequences = [pipeline.submit(question, GREEDY) for question in QUESTIONS]
        pipeline.pump(9)
        pipeline.renew(1)
        with monkeypatch.context() as patched:
            patched.setattr(pipeline.contexts[-1], "evaluate", failing)
            pipeline.replay(1)
        assert not pipeline.later[1].cells()
        pipeline.next_epoch()
        pipeline.open()
        pipeline.pump()
        assert [text_of(sequence) for sequence in sequences] == expected


def failing(*_arguments: object) -> None:
    """What llama.cpp does when it finds no room, say."""
    raise GenerationFailed("llama_decode failed")
