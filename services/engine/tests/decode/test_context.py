"""Numbers that depend on nothing but the sequence itself."""

from __future__ import annotations

import numpy as np
import pytest

from schemas.errors import ModelUnusable
from services.engine.decode import context as context_module
from services.engine.decode.batch import Batch
from services.engine.decode.context import Context, Logits, cache_bytes_per_token
from services.engine.model.memory.cells import BF16, F16, Q8_0, cache_types_of
from services.engine.model.model import Model, Tokens

CONTEXT_TOKENS = 512
# Longer than 256 and 512 cells' worth of padding, where llama.cpp would change its algorithm.
PROMPT: Tokens = np.random.default_rng(1).integers(0, 256, 300).astype(np.int32)


def last_logits(
    model: Model, *, chunk: int, slot: int, neighbours: tuple[int, ...], threads: tuple[int, ...]
) -> Logits:
    """The logits after PROMPT, read in chunks while neighbours decode a token of their own in every batch,
    with these numbers of threads in turn."""
    context = Context(
        model, slots=4, context_tokens=CONTEXT_TOKENS, batch_tokens=CONTEXT_TOKENS, threads=max(threads)
    )
    batch, row = Batch(CONTEXT_TOKENS), 0
    for step, start in enumerate(range(0, len(PROMPT), chunk)):
        batch.clear()
        for neighbour in neighbours:
            batch.add_token(neighbour, step, int(PROMPT[-step]))
        row = batch.add_chunk(slot, start, PROMPT[start : start + chunk], want_last=True)
        context.use_threads(threads[step % len(threads)])
        assert context.decode(batch) == 0
    logits = context.logits(row).copy()
    context.close()
    return logits


@pytest.mark.parametrize("types", [(Q8_0, F16), (F16, BF16)])
def test_logits_are_the_same_to_the_last_bit_however_a_prompt_is_read(
    model: Model, monkeypatch: pytest.MonkeyPatch, types: tuple[int, int]
) -> None:
    monkeypatch.setattr(context_module, "cache_types_of", lambda header, *, exact: types)
    alone = last_logits(model, chunk=1, slot=0, neighbours=(), threads=(1,))
    for chunk, slot, neighbours, threads in [
        (CONTEXT_TOKENS, 0, (), (1,)),
        (64, 0, (), (2, 1)),
        (7, 3, (0, 1), (1,)),
        (100, 1, (0, 2, 3), (2,)),
        (1, 2, (1,), (1,)),
    ]:
        other = last_logits(model, chunk=chunk, slot=slot, neighbours=neighbours, threads=threads)
        assert np.array_equal(alone, other)


def test_keys_are_kept_in_blocks_where_heads_are_made_of_whole_blocks(model: Model) -> None:
    assert cache_types_of(model.header) == (Q8_0, F16)


def test_a_cache_that_no_memory_can_hold_is_an_error_not_the_end(model: Model) -> None:
    with pytest.raises(ModelUnusable, match=r"tiny\.gguf needs \d+ GB"):
        Context(model, slots=256, context_tokens=2**40, batch_tokens=64, threads=1)


def test_a_token_takes_what_its_keys_and_values_take(model: Model) -> None:
    layers, heads, head_size = 2, 2, 32
    assert cache_bytes_per_token(model) == layers * heads * head_size * (34 / 32 + 2)
