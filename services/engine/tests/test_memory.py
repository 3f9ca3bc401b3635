"""What is said that a model will take, against what it takes."""

from __future__ import annotations

import logging
import re
import subprocess
import sys
from pathlib import Path

import pytest

from infra.demo_models.bench_model import write_bench_model
from services.engine.decode.context import Context
from services.engine.memory import BATCH_TOKENS, memory_need
from services.engine.model.gguf.check import check_model_file
from services.engine.model.model import Weights
from services.engine.tests.made_models.random_models import DEEPSEEK_LITE, RECIPES, Recipe, write_random_model

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


def test_a_loaded_model_takes_as_much_as_was_said_before(tmp_path: Path) -> None:
    model = write_bench_model(tmp_path / "model.gguf", layers=4, width=896)
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


def _told(what: str, log: str) -> float:
    """The MiB that llama.cpp's log says of something, all together."""
    return sum(float(size) for size in re.findall(rf"{what} = *([\d.]+) MiB", log))
