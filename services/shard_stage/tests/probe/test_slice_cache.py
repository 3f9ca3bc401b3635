"""The slices on a host's disk."""

from __future__ import annotations

import os
import time
from pathlib import Path

from infra.demo_models.family import FOLDER
from services.shard_stage.probe.slice_cache import UNUSED_S, SliceCache

MODEL = FOLDER / "choir-llama.gguf"
SHA256 = "a" * 64


def test_slices_that_moves_of_the_cut_have_left_behind_are_removed_in_time(tmp_path: Path) -> None:
    cache = SliceCache(tmp_path)
    used, left, asked_again, young = (
        cache.slice_of(MODEL, SHA256, layers) for layers in (range(2), range(1), range(2, 4), range(3, 4))
    )
    other = cache.slice_of(MODEL, "b" * 64, range(1))
    (strange := tmp_path / f"{SHA256}-notes.gguf").write_text("somebody else's")
    long_ago_s = time.time() - 2 * UNUSED_S
    for path in (used, left, asked_again, other, strange):
        os.utime(path, (long_ago_s, long_ago_s))
    # When a slice is asked for again, and the plan names another
    cache.slice_of(MODEL, SHA256, range(2, 4))
    cache.forget_unused(SHA256, [range(2)])
    # Then what is left of this model goes, and no more
    assert not left.exists()
    assert all(path.exists() for path in (used, asked_again, young, other, strange))
