"""Memory that is freed stays: whoever moves blocks one after another does not wait for pages each time."""

from __future__ import annotations

import subprocess
import sys

import pytest

from infra.testing.plugin import REPOSITORY

BLOCKS, BLOCK_BYTES, ROUNDS = 8, 512 * 1024, 40
MOVES = f"""
import resource
from services.chassis.process.memory import keep_freed
def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range({ROUNDS}):
        blocks = [b"x" * {BLOCK_BYTES} for _ in range({BLOCKS})]
        del blocks
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
before = faults()
keep_freed({4 * BLOCKS * BLOCK_BYTES})
faults()
print(before, faults())
"""


@pytest.mark.skipif(sys.platform != "linux", reason="what is kept is glibc's matter")
def test_blocks_that_are_used_again_and_again_cost_no_page_faults() -> None:
    said = subprocess.check_output([sys.executable, "-c", MOVES], cwd=REPOSITORY, text=True)
    before, after = map(int, said.split())
    assert after < BLOCKS < before / 10
