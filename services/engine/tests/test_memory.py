"""What is said that a model will take, against what it takes."""

from __future__ import annotations

import logging
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from gguf import GGMLQuantizationType

from infra.demo_models.bench_model import write_bench_model
from infra.testing.made_models.random_models import (
    DEEPSEEK_LITE,
    RECIPES,
    Recipe,
    Shape,
    write_random_model,
)
from infra.testing.made_models.variants import quantised
from services.engine.decode.context import Context
from services.engine.model.gguf.check import check_model_file, tensor_nbytes
from services.engine.model.memory.need import BATCH_TOKENS, memory_need
from services.engine.model.model import Weights

MIB = 1024 * 1024
DEADLINE_S = 180
SLOTS, CONTEXT_TOKENS = 8, 4096
LEAST_SHARE, MOST_SHARE = 0.95, 1.35
"""What is said may be so much of what was measured."""
CHILD = """
import sys
from pathlib import Path
import psutil
from services.engine import Engine
from schemas.requests.sampling import Sampling
path, slots, context_tokens, batch_tokens = Path(sys.argv[1]), *map(int, sys.argv[2:])
before = psutil.Process().memory_info().rss
with Engine.load(path, slots=slots, context_tokens=context_tokens, threads=1) as engine:
    engine.generate("x" * (batch_tokens + 10), Sampling(max_tokens=2))
    print(psutil.Process().memory_info().rss - before)
"""


@pytest.mark.parametrize("quantisation", ["Q8_0", pytest.param("Q4_0", marks=pytest.mark.soak)])
def test_a_loaded_model_takes_as_much_as_was_said_before(quantisation: str, tmp_path: Path) -> None:
    model = write_bench_model(tmp_path / "model.gguf", layers=4, width=896)
    if quantisation != "Q8_0":
        model = quantised(model, quantisation)
    need = memory_need(check_model_file(model), model.stat().st_size, SLOTS, CONTEXT_TOKENS)
    sizes = map(str, (SLOTS, CONTEXT_TOKENS, BATCH_TOKENS))
    command = [sys.executable, "-c", CHILD, str(model), *sizes]
    child = subprocess.run(command, capture_output=True, text=True, timeout=DEADLINE_S, check=True)
    taken = int(child.stdout)
    # The weights alone are far from it
    assert need.weights_bytes < 0.7 * taken
    assert LEAST_SHARE < need.total_bytes / taken < MOST_SHARE, (need, taken)


@pytest.mark.parametrize(
    ("architecture", "recipe"),
    [
        ("qwen3", RECIPES["qwen3"]),
        ("gemma3", RECIPES["gemma3"]),
        ("granitemoe", RECIPES["granitemoe"]),
        ("deepseek2", RECIPES["deepseek2"]),
        ("deepseek2", DEEPSEEK_LITE),
    ],
)
def test_the_cache_is_what_llama_cpp_makes_for_it_and_steps_have_no_less_than_it_reserves(
    architecture: str, recipe: Recipe, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    model = write_random_model(tmp_path / "model.gguf", architecture, recipe)
    need = memory_need(check_model_file(model), model.stat().st_size, 3, 3_000)
    with caplog.at_level(logging.DEBUG, logger="llama.cpp"):
        weights = Weights(model)
        Context(weights, slots=3, context_tokens=3_000, batch_tokens=BATCH_TOKENS, threads=1).close()
        weights.close()
    assert _told("KV buffer size", caplog.text) == pytest.approx(need.cache_bytes / MIB, abs=0.02)
    assert 0 < _told("compute buffer size", caplog.text) < need.working_bytes / MIB


def test_weights_in_a_form_of_the_processor_s_own_are_counted_as_often_as_they_are_there(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Given models of which most is rewritten, some, or nothing, whatever this processor rewrites."""
    shape, mxfp4 = Shape(256, 4, 64, 4, 512, vocabulary=256), GGMLQuantizationType.MXFP4
    tied, untied = (replace(RECIPES[name], shape=shape, layers=2) for name in ("qwen3", "llama"))
    full = write_random_model(tmp_path / "f32.gguf", "qwen3", tied, matrices=GGMLQuantizationType.F32)
    models = [full, *(quantised(full, name) for name in ("Q8_0", "Q4_0", "Q4_K_M", "Q2_K", "IQ4_NL"))]
    models.append(write_random_model(tmp_path / "untied.gguf", "llama", untied, matrices=mxfp4))
    few = replace(RECIPES["gpt-oss"], experts_as=mxfp4)
    models.append(write_random_model(tmp_path / "few.gguf", "gpt-oss", few))
    for model in models:
        caplog.clear()
        header = check_model_file(model)
        with caplog.at_level(logging.DEBUG, logger="llama.cpp"):
            Weights(model).close()
        need = memory_need(header, sum(map(tensor_nbytes, header.tensors)), 1, 256)
        said = need.weights_bytes + need.copies_bytes
        taken = _told("model buffer size", caplog.text) * MIB
        # llama.cpp rounds what it tells, and leaves out what of a mapped file comes before the first matrix
        assert said == pytest.approx(taken, rel=0.05, abs=0.02 * MIB), (model.name, need)
        assert said < 1.6 * need.weights_bytes, (model.name, need)


def _told(what: str, log: str) -> float:
    """The MiB that llama.cpp's log says of something, all together."""
    return sum(float(size) for size in re.findall(rf"{what} = *([\d.]+) MiB", log))
