"""Stages put together compute what the unsplit model computes, to the last bit."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from infra.testing.made_models.variants import (
    DEMO_MODELS,
    demo_model,
    fixture_model,
    random_q8_0,
    write_variant,
)
from schemas.errors import ContextExceeded, GenerationFailed, InvalidRequest, ModelUnusable
from schemas.requests.sampling import Sampling
from services.engine import Engine
from services.engine.decode.batch import Batch
from services.engine.decode.context import Context, Logits
from services.engine.decode.hidden_states import Hidden
from services.engine.decode.rows import RowGroup, Rows
from services.engine.decode.sampler import TokenSampler
from services.engine.decode.stage_context import StageContext
from services.engine.model.cuts import even_layers
from services.engine.model.gguf.check import check_model_file
from services.engine.model.model import Model, Tokens, Weights
from services.engine.model.slicing import slice_file

TOKENS = 24
SLOTS, CONTEXT_TOKENS, BATCH_TOKENS = 8, 256, 64
PROMPTS = (
    "<|user|>What is the capital of France?<|end|><|assistant|>",
    "<|user|>What is 17 plus 25?<|end|><|assistant|>",
    "The",
)


@dataclass
class Pipeline:
    """The stages of a model in one process."""

    stages: Sequence[StageContext]

    def logits(self, parts: Sequence[RowGroup]) -> Logits:
        """The logits of the last row of every slot, by ascending slot."""
        rows = Rows.of(parts)
        for stage in self.stages[:-1]:
            rows = Rows(rows.slots, rows.positions, stage.hidden_states(rows))
        last = [*np.flatnonzero(np.diff(rows.slots)).tolist(), len(rows) - 1]
        return self.stages[-1].logits(rows, last)


@contextmanager
def pipeline(model: Path, folder: Path, stages: int) -> Iterator[Pipeline]:
    """A model in slices that are as even as can be."""
    with ExitStack() as opened:
        contexts = []
        for layers in even_layers(check_model_file(model), stages):
            path = folder / f"{stages}-{layers.start}.gguf"
            slice_file(model, layers, path)
            contexts.append(opened.enter_context(stage_of(path)))
        yield Pipeline(contexts)


def stage_of(path: Path, slots: int = SLOTS) -> StageContext:
    return StageContext(Weights(path), slots=slots, context_tokens=CONTEXT_TOKENS, batch_tokens=BATCH_TOKENS)


def greedy_logits_unsplit(model: Path, prompts: Sequence[Tokens], slots: Sequence[int]) -> list[Logits]:
    """What the engine's own context computes for TOKENS greedy tokens after each prompt, prompt by prompt:
    shape (TOKENS, vocabulary)."""
    weights = Model(model)
    context = Context(
        weights, slots=SLOTS, context_tokens=CONTEXT_TOKENS, batch_tokens=BATCH_TOKENS, threads=1
    )
    found, batch = [], Batch(BATCH_TOKENS)
    for slot, prompt in zip(slots, prompts, strict=True):
        batch.clear()
        row, rows = batch.add_chunk(slot, 0, prompt, want_last=True), []
        for step in range(TOKENS):
            assert context.decode(batch) == 0
            rows.append(context.logits(row).copy())
            batch.clear()
            row = batch.add_token(slot, len(prompt) + step, int(rows[-1].argmax()))
        found.append(np.stack(rows))
    context.close()
    weights.close()
    return found


def greedy_logits(stages: Pipeline, prompts: Sequence[Tokens], slots: Sequence[int]) -> list[Logits]:
    """The same from a pipeline, all prompts at once."""
    parts = [RowGroup(slot, 0, prompt) for slot, prompt in zip(slots, prompts, strict=True)]
    steps = []
    for _ in range(TOKENS):
        steps.append(stages.logits(parts))
        parts = [
            RowGroup(part.slot, part.position + len(part.inputs), np.array([row.argmax()], dtype=np.int32))
            for part, row in zip(parts, steps[-1], strict=True)
        ]
    return list(np.stack(steps, axis=1))


def engine_texts(path: Path) -> list[str]:
    """The engine's greedy answers."""
    with Engine.load(path, slots=SLOTS, context_tokens=CONTEXT_TOKENS, threads=1) as engine:
        return [
            engine.generate(prompt, Sampling(max_tokens=TOKENS, temperature=0)).text for prompt in PROMPTS
        ]


def text_of(model: Model, logits: Logits) -> str:
    """The greedy text that logits stand for, up to its end."""
    chosen = logits.argmax(axis=1).tolist()
    ends = [index for index, token in enumerate(chosen) if model.ends_generation(token)]
    return model.text_of(chosen[: ends[0] if ends else None])


def tokenized(path: Path, texts: Sequence[str]) -> list[Tokens]:
    model = Model(path)
    found = [model.tokenize(text) for text in texts]
    model.close()
    return found


@pytest.fixture(scope="module")
def six_layers(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The Gemma demo model with two of its layers twice: its four can be cut in one place only."""
    path = tmp_path_factory.mktemp("m") / "six.gguf"
    return write_variant(demo_model("gemma"), path, layers=[0, 1, 0, 1, 2, 3])


@pytest.mark.parametrize(
    ("name", "stages"),
    [(name, stages) for name in DEMO_MODELS for stages in (2, 3) if (name, stages) != ("gemma", 3)],
)
def test_demo_models_in_slices_say_what_they_say_whole(name: str, stages: int, tmp_path: Path) -> None:
    assert_the_same(demo_model(name), stages, tmp_path)


def test_a_gemma_of_six_layers_in_three_slices_says_what_it_says_whole(
    six_layers: Path, tmp_path: Path
) -> None:
    assert_the_same(six_layers, 3, tmp_path)


def test_a_demo_model_with_an_output_matrix_of_its_own_too(tmp_path: Path) -> None:
    untied = write_variant(
        demo_model("qwen"), tmp_path / "untied.gguf", tensors={"output.weight": random_q8_0(2560, 192)}
    )
    assert_the_same(untied, 3, tmp_path)


def test_a_model_whose_layers_differ_too(tmp_path: Path) -> None:
    lists = {"attention.head_count_kv": [3] * 4, "feed_forward_length": [384] * 4}
    model = write_variant(demo_model("llama"), tmp_path / "lists.gguf", metadata=lists)
    assert_the_same(model, 3, tmp_path)


def assert_the_same(path: Path, stages: int, folder: Path) -> None:
    """Texts and logits, the prompts side by side in the pipeline and one after another in the engine."""
    prompts, slots = tokenized(path, PROMPTS), (0, 1, 5)
    unsplit = greedy_logits_unsplit(path, prompts, slots)
    with pipeline(path, folder, stages) as split:
        found = greedy_logits(split, prompts, slots)
    for whole, logits in zip(unsplit, found, strict=True):
        assert np.array_equal(whole, logits)
    texts, model = engine_texts(path), Model(path)
    assert any(texts)
    assert [text_of(model, logits) for logits in found] == texts
    model.close()


@pytest.mark.parametrize("architecture", ["llama", "qwen2", "phi3"])
def test_slices_that_are_not_quantised_compute_the_model_too(architecture: str, tmp_path: Path) -> None:
    prompt = np.arange(5, 25, dtype=np.int32)
    path = fixture_model(architecture)
    with stage_of(path) as whole, pipeline(path, tmp_path, 2) as split:
        expected = whole.logits(Rows.of([RowGroup(0, 0, prompt)]), [19])
        assert np.array_equal(split.logits([RowGroup(0, 0, prompt)]), expected)


def test_a_hidden_state_depends_on_its_sequence_alone(tmp_path: Path) -> None:
    random = np.random.default_rng(2)
    sequences = {slot: random.integers(0, 2560, 20).astype(np.int32) for slot in (0, 1, 2, 4, 7)}
    slice_file(demo_model("gemma"), range(0, 2), tmp_path / "first.gguf")

    with stage_of(tmp_path / "first.gguf") as stage:
        alone = {
            slot: stage.hidden_states(Rows.of([RowGroup(slot, 0, sequence)]))
            for slot, sequence in sequences.items()
        }
    with stage_of(tmp_path / "first.gguf") as stage:
        together: dict[int, list[Hidden]] = {slot: [] for slot in sequences}
        read = dict.fromkeys(sequences, 0)
        while any(read[slot] < 20 for slot in sequences):
            lengths = {
                slot: min(20 - read[slot], int(random.integers(1, 9)))
                for slot in sequences
                if read[slot] < 20
            }
            rows = Rows.of(
                RowGroup(slot, read[slot], sequences[slot][read[slot] : read[slot] + length])
                for slot, length in lengths.items()
            )
            states = stage.hidden_states(rows)
            for slot, length in lengths.items():
                together[slot].append(states[rows.slots == slot])
                read[slot] += length
    for slot in sequences:
        assert np.array_equal(np.concatenate(together[slot]), alone[slot])


def test_a_slot_whose_cells_are_dropped_starts_anew(tmp_path: Path) -> None:
    rows = Rows.of([RowGroup(3, 0, np.arange(9, dtype=np.int32))])
    slice_file(demo_model("llama"), range(0, 2), tmp_path / "first.gguf")
    with stage_of(tmp_path / "first.gguf") as stage:
        once = stage.hidden_states(rows)
        assert stage.forget(3)
        assert np.array_equal(stage.hidden_states(rows), once)
        assert stage.forget(3, keep=4)
        again = stage.hidden_states(rows.take(np.arange(4, 9)))
        assert np.array_equal(again, once[4:])


TOKEN = np.zeros(1, dtype=np.int32)
STATE = np.zeros((1, 192), dtype=np.float32)


@pytest.mark.parametrize(
    "rows",
    [
        Rows.of([RowGroup(0, 0, np.zeros(BATCH_TOKENS + 1, dtype=np.int32))]),
        Rows.of([RowGroup(SLOTS, 0, TOKEN)]),
        Rows.of([RowGroup(-1, 0, TOKEN)]),
        Rows.of([RowGroup(0, -1, TOKEN)]),
        Rows.of([RowGroup(0, 0, TOKEN + 2560)]),
        Rows.of([RowGroup(0, 0, TOKEN - 1)]),
        Rows.of([RowGroup(0, 0, STATE)]),
        Rows(TOKEN, TOKEN, np.zeros(2, dtype=np.int32)),
    ],
)
def test_rows_that_llama_cpp_must_not_see_do_not_reach_it(rows: Rows, tmp_path: Path) -> None:
    slice_file(demo_model("llama"), range(0, 2), tmp_path / "first.gguf")
    with stage_of(tmp_path / "first.gguf") as stage, pytest.raises(InvalidRequest):
        stage.hidden_states(rows)


def test_a_middle_stage_takes_states_of_its_own_width_only(tmp_path: Path) -> None:
    slice_file(demo_model("llama"), range(1, 2), tmp_path / "middle.gguf")
    with stage_of(tmp_path / "middle.gguf") as stage:
        assert stage.hidden_states(Rows.of([RowGroup(0, 0, STATE)])).shape == (1, 192)
        for inputs in (TOKEN, STATE[:, :96]):
            with pytest.raises(InvalidRequest, match="states of width 192"):
                stage.hidden_states(Rows.of([RowGroup(1, 0, inputs)]))
        with pytest.raises(ContextExceeded):
            stage.hidden_states(Rows.of([RowGroup(0, CONTEXT_TOKENS, STATE)]))
        with pytest.raises(InvalidRequest, match="only the last stage gives logits"):
            stage.logits(Rows.of([RowGroup(0, 1, STATE)]), [0])


def test_the_last_stage_gives_logits_of_rows_that_are_there(tmp_path: Path) -> None:
    slice_file(demo_model("llama"), range(3, 4), tmp_path / "last.gguf")
    with stage_of(tmp_path / "last.gguf", slots=2) as stage:
        rows = Rows.of([RowGroup(0, 0, np.zeros((3, 192), dtype=np.float32))])
        with pytest.raises(InvalidRequest, match="not hidden states"):
            stage.hidden_states(rows)
        for wanted in ([3], [-1], [0, 0], [0, 1, 2]):
            with pytest.raises(InvalidRequest, match="logits are wanted"):
                stage.logits(rows, wanted)
        assert stage.logits(rows, []).shape == (0, 2560)
        logits = stage.logits(Rows.of([RowGroup(0, 3, STATE), RowGroup(1, 0, STATE)]), [1, 0])
        assert np.isfinite(logits).all()
        sampler = TokenSampler(Sampling(temperature=0))
        assert [sampler.sample(stage.context, row) for row in (1, 0)] == logits.argmax(axis=1).tolist()
        sampler.close()


def test_states_that_did_not_all_go_into_the_graph_are_a_failure(tmp_path: Path) -> None:
    """Gemma's are put there in pieces, as llama.cpp cuts a step: one that it cuts otherwise must not pass."""
    slice_file(demo_model("gemma"), range(2, 4), tmp_path / "last.gguf")
    rows = Rows.of([RowGroup(slot, 0, np.zeros((2 + slot, 256), dtype=np.float32)) for slot in (0, 3)])
    with stage_of(tmp_path / "last.gguf") as stage:
        assert np.isfinite(stage.logits(rows, [1, 6])).all()
        for pieces in ([np.arange(7)], [np.arange(2)], [np.arange(2), np.arange(2, 7), np.arange(1)]):
            assert stage.forget(0) and stage.forget(3)
            with pytest.MonkeyPatch.context() as patch, pytest.raises(GenerationFailed, match="other pieces"):
                patch.setattr(Rows, "equal_pieces", lambda _rows, _limit, cut=pieces: iter(cut))
                stage.logits(rows, [1, 6])


def test_a_file_that_contradicts_itself_is_no_stage(tmp_path: Path) -> None:
    slice_file(demo_model("llama"), range(0, 2), tmp_path / "first.gguf")
    content = (tmp_path / "first.gguf").read_bytes()
    end_layer = content.index(b"choir.slice.end_layer") + len(b"choir.slice.end_layer") + 4
    (tmp_path / "odd.gguf").write_bytes(content[:end_layer] + b"\x03" + content[end_layer + 1 :])
    with pytest.raises(ModelUnusable, match=r"odd\.gguf is not usable: it claims layers 0 to 2 of 4"):
        stage_of(tmp_path / "odd.gguf")
