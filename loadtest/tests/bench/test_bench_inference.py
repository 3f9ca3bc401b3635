"""The two sides of the engine's bench do the same work."""

from __future__ import annotations

import os
from contextlib import closing
from pathlib import Path

from infra.demo_models.bench_model import write_bench_model
from loadtest.bench.inference.engine_alone import EngineNode
from loadtest.bench.inference.llama_loop import Loop

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
