"""The two sides of the engine's bench do the same work."""

from __future__ import annotations

import os
from contextlib import closing
from pathlib import Path

import pytest

from infra.demo_models.bench_model import write_bench_model
from loadtest.bench.inference.engine_alone import EngineNode, rate
from loadtest.bench.inference.llama_loop import Loop
from loadtest.faults import LoadtestError

SLOTS, CONTEXT_TOKENS, STEPS = 4, 128, 24


def test_engine_and_bare_loop_decode_after_the_same_prompts_round_after_round(tmp_path: Path) -> None:
    model = write_bench_model(tmp_path / "bench.gguf", layers=4, width=512)
    loop = Loop(str(model), threads=1, slots=SLOTS, context_tokens=CONTEXT_TOKENS)
    read: list[int] = []
    decode = loop._decode

    def counted(tokens: int) -> None:
        read.append(tokens)
        decode(tokens)

    loop._decode = counted  # type: ignore[method-assign]
    with closing(EngineNode((min(os.sched_getaffinity(0)),), SLOTS, CONTEXT_TOKENS)) as engine:
        prompts = engine.prompts(model, 3)
        assert len({tuple(prompt) for prompt in prompts}) == 3
        for first in (True, False):
            assert engine.tokens_per_s(model, 3, STEPS) > 0
            read.clear()
            assert loop.tokens_per_s(prompts, STEPS) > 0
            assert read == [len(prompt) if first else 1 for prompt in prompts] + [3] * STEPS


def test_of_engines_that_decode_at_once_only_the_time_counts_in_which_all_do() -> None:
    """Given one that decodes ten tokens a second, and a faster one that is done after half the time."""
    slow = [number / 10 for number in range(41)]
    fast = [1.0 + number / 20 for number in range(21)]
    assert rate([slow]) == pytest.approx(10)
    assert rate([slow, fast]) == pytest.approx(30)
    with pytest.raises(LoadtestError, match="before another had any"):
        rate([slow, [9.0, 9.1]])
