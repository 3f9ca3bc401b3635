"""Slices of every architecture compute, to the last bit, what the whole model computes."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from gguf import GGMLQuantizationType

from infra.testing.made_models.published_shapes import PUBLISHED, Published
from infra.testing.made_models.random_models import (
    BLOCKS,
    DEEPSEEK_LITE,
    RECIPES,
    Recipe,
    Shape,
    write_random_model,
)
from infra.testing.made_models.variants import quantised
from services.engine.decode.context import Logits
from services.engine.decode.rows import Integers, RowGroup, Rows
from services.engine.decode.stage_context import StageContext
from services.engine.model.architectures.table import ARCHITECTURES
from services.engine.model.cuts import allowed_cuts, layer_count
from services.engine.model.gguf.check import check_model_file
from services.engine.model.model import Weights
from services.engine.model.slicing import slice_file

STEPS = 3
SLOTS, PROMPT_TOKENS, BATCH_TOKENS, CONTEXT_TOKENS = 3, 20, 32, 64
QUANTISATIONS = ("Q2_K", "Q3_K_M", "Q4_K_M", "Q5_K_M", "Q6_K", "IQ3_S", "IQ4_NL", "IQ4_XS")
WIDE = replace(RECIPES["qwen3"], shape=Shape(256, 8, 32, 2, 256), layers=3)


@pytest.fixture(autouse=True)
def _room_on_disk(tmp_path: Path) -> Iterator[None]:
    """Models of true widths take gigabytes each, and pytest keeps its folders until the end of the run."""
    yield
    shutil.rmtree(tmp_path)


def prompts_over(window: int) -> dict[int, Integers]:
    """Two prompts by their slots, the first of them longer than a sliding window of so many tokens."""
    return {
        0: np.arange(window + PROMPT_TOKENS, dtype=np.int32) % 89,
        2: np.arange(5, 14, dtype=np.int32) * 3 % 96,
    }


def logits_of(files: Sequence[Path], window: int = 0) -> Logits:
    """Logits of two sequences that share their steps: after their prompts, and after each further token."""
    size = {
        "slots": SLOTS,
        "context_tokens": window + CONTEXT_TOKENS,
        "batch_tokens": window + BATCH_TOKENS,
    }
    with ExitStack() as opened:
        stages = [opened.enter_context(StageContext(Weights(file), **size)) for file in files]
        parts = [RowGroup(slot, 0, prompt) for slot, prompt in prompts_over(window).items()]
        found = []
        for _ in range(STEPS):
            rows = Rows.of(parts)
            for stage in stages[:-1]:
                rows = Rows(rows.slots, rows.positions, stage.hidden_states(rows))
            last = [*np.flatnonzero(np.diff(rows.slots)).tolist(), len(rows) - 1]
            found.append(stages[-1].logits(rows, last))
            parts = [
                RowGroup(
                    part.slot, part.position + len(part.inputs), row.argmax(keepdims=True).astype(np.int32)
                )
                for part, row in zip(parts, found[-1], strict=True)
            ]
        return np.array(found)


def differences(model: Path, folder: Path, window: int = 0) -> dict[str, float]:
    """By how much the logits of two and of three slices differ from the whole's at most, one of the prompts
    being longer than a `window` of so many tokens."""
    header = check_model_file(model)
    count, cuts = layer_count(header), allowed_cuts(header)
    whole = logits_of([model], window)
    assert np.isfinite(whole).all() and whole.std() > 0.01, f"{model.stem}: these logits say nothing"
    assert len({row.tobytes() for step in whole for row in step}) == 2 * STEPS
    found = {}
    for ends in ((0, cuts[len(cuts) // 2], count), (0, cuts[0], cuts[-1], count)):
        files = []
        for start, end in pairwise(ends):
            files.append(folder / f"{model.stem}-{start}-{end}.gguf")
            slice_file(model, range(start, end), files[-1])
        found[str(ends)] = float(np.abs(logits_of(files, window) - whole).max())
    return found


def assert_exact(architecture: str, recipe: Recipe, folder: Path, name: str = "") -> None:
    model = folder / f"{name or architecture}.gguf"
    write_random_model(model, architecture, recipe)
    assert set(differences(model, folder).values()) == {0.0}, name or architecture


def test_slices_of_every_architecture_compute_what_the_whole_computes(tmp_path: Path) -> None:
    assert set(RECIPES) == set(ARCHITECTURES)
    for architecture, recipe in RECIPES.items():
        assert_exact(architecture, recipe, tmp_path)


def test_what_llama_cpp_tells_by_the_number_of_layers_is_said_to_slices(tmp_path: Path) -> None:
    """A Lite DeepSeek, MiniCPM's own scales, windows whose period a file names or whose layers it lists."""
    gemma2 = RECIPES["gemma2"]
    listed = {**gemma2.keys, "attention.sliding_window_pattern": [1, 1, 0, 0, 1, 1]}
    named = {**gemma2.keys, "attention.sliding_window_pattern": 3}
    scaled = {"residual_scale": 0.3, "logit_scale": 2.0, "embedding_scale": 5.0}
    assert_exact("deepseek2", replace(DEEPSEEK_LITE, layers=27), tmp_path, "lite")
    assert_exact("gemma2", replace(gemma2, keys=listed), tmp_path, "listed")
    assert_exact("gemma2", replace(gemma2, keys=named), tmp_path, "named")
    assert_exact("minicpm", replace(RECIPES["minicpm"], keys=scaled), tmp_path, "scaled")


def test_quantised_and_split_files_are_cut_as_exactly(tmp_path: Path) -> None:
    model = write_random_model(tmp_path / "f32.gguf", "qwen3", WIDE, matrices=GGMLQuantizationType.F32)
    for name in ("Q4_K_M", "IQ4_XS"):
        assert set(differences(quantised(model, name), tmp_path).values()) == {0.0}, name
    write_random_model(tmp_path / "split.gguf", "qwen2", RECIPES["qwen2"], split_tensors=20)
    first, *others = sorted(tmp_path.glob("split-*-of-*.gguf"))
    assert len(others) > 1
    assert set(differences(first, tmp_path).values()) == {0.0}


@pytest.mark.soak
def test_every_quantisation_that_llama_cpp_makes_is_cut_as_exactly(tmp_path: Path) -> None:
    model = write_random_model(tmp_path / "f32.gguf", "qwen3", WIDE, matrices=GGMLQuantizationType.F32)
    for name in QUANTISATIONS:
        assert set(differences(quantised(model, name), tmp_path).values()) == {0.0}, name
    for kind in BLOCKS:
        model = write_random_model(tmp_path / f"{kind.name}.gguf", "qwen3", WIDE, matrices=kind)
        assert set(differences(model, tmp_path).values()) == {0.0}, kind.name


@pytest.mark.soak
@pytest.mark.parametrize("published", PUBLISHED, ids=lambda published: published.model)
def test_slices_in_the_shapes_of_published_models_are_as_exact(published: Published, tmp_path: Path) -> None:
    model = write_random_model(tmp_path / "model.gguf", published.architecture, published.recipe)
    assert set(differences(model, tmp_path, published.window).values()) == {0.0}


def test_slices_in_the_shape_of_a_small_published_model_are_as_exact(tmp_path: Path) -> None:
    (published,) = (one for one in PUBLISHED if one.model == "Qwen3 0.6B")
    model = write_random_model(tmp_path / "model.gguf", published.architecture, published.recipe)
    assert set(differences(model, tmp_path).values()) == {0.0}


@pytest.mark.soak
@pytest.mark.parametrize(("name", "quantisation"), [("Qwen3 30B A3B", "Q4_K_M"), ("Gemma 2 2B", "Q6_K")])
def test_published_shapes_are_as_exact_when_llama_cpp_has_quantised_them(
    name: str, quantisation: str, tmp_path: Path
) -> None:
    (published,) = (one for one in PUBLISHED if one.model == name)
    model = write_random_model(tmp_path / "model.gguf", published.architecture, published.recipe)
    assert set(differences(quantised(model, quantisation), tmp_path, published.window).values()) == {0.0}
