"""How a prompt is cut, by its length and the measured costs."""

from __future__ import annotations

from dataclasses import replace

from services.shard_stage.pipeline.prefill_chunks import TOKENWISE_CHUNK, Costs, chunk_tokens, prefill_ms

COSTS = Costs(step_ms=1.0, token_ms=5.0, hop_ms=0.2, token_bytes=3584)


def test_layerwise_and_a_single_stage_take_the_whole_prompt() -> None:
    assert chunk_tokens("layerwise", 1000, 3, COSTS) == 1000
    assert chunk_tokens("adaptive", 1000, 1, COSTS) == 1000


def test_tokenwise_takes_chunks_of_a_fixed_size() -> None:
    assert chunk_tokens("tokenwise", 1000, 2, COSTS) == TOKENWISE_CHUNK
    assert chunk_tokens("tokenwise", 10, 2, COSTS) == 10


def test_adaptive_leaves_short_prompts_whole_and_cuts_long_ones() -> None:
    assert chunk_tokens("adaptive", 8, 2, COSTS) == 8
    assert chunk_tokens("adaptive", 1000, 2, COSTS) < 128


def test_where_hops_are_dear_chunks_are_larger() -> None:
    far = replace(COSTS, hop_ms=400.0)
    assert chunk_tokens("adaptive", 1000, 2, far) > chunk_tokens("adaptive", 1000, 2, COSTS)


def test_overlapping_saves_nearly_half_of_a_long_prompt_on_two_stages() -> None:
    whole, cut = (prefill_ms(1000, chunk, 2, COSTS) for chunk in (1000, 32))
    assert cut < 0.6 * whole
