"""Who should have a task, by the beginnings that agents keep, and how long the task waits for that agent.

Pure. What a beginning saves is measured: how long this agent takes for a block of a prompt. To wait for a
part of that costs at worst that part of the prefill, and at best saves all of it.
"""

from __future__ import annotations

import zlib
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass

from schemas.requests.origin import shared_blocks

LEAST_SAVED_S = 0.03
"""To hand a task over takes some milliseconds, and some more where hosts are busy."""
LEAST_WAIT_S = 0.02
LONGEST_WAIT_S = 10.0
NEWEST_WEIGHT = 0.25
LEAST_EVALUATED_TOKENS = 32
"""A shorter piece of a prompt takes as long as the step that it is in."""


@dataclass(frozen=True)
class Holder:
    """An agent that may be asked: the blocks that it keeps, and how many free slots it has had of late."""

    instance: str
    blocks: Collection[str]
    free: int = 0


def best_holder(
    blocks: Sequence[str], own: Collection[str], holders: Iterable[Holder]
) -> tuple[Holder, int] | None:
    """Who keeps more of the beginning of a prompt than is kept here, and how many of its `blocks`; None if
    nobody does. Of several the one with most free slots; one of equals, another one for another prompt."""
    kept = [(shared_blocks(blocks, holder.blocks), holder) for holder in holders]
    best = max(kept, key=lambda one: (one[0], one[1].free, _lot(blocks, one[1])), default=None)
    if best is None or best[0] <= shared_blocks(blocks, own):
        return None
    return best[1], best[0]


def _lot(blocks: Sequence[str], holder: Holder) -> int:
    return zlib.crc32(f"{blocks[-1] if blocks else ''} {holder.instance}".encode())


class PrefillSpeed:
    """How long a block of a prompt takes here, as measured of late; None before anything was."""

    def __init__(self) -> None:
        self.block_s: float | None = None

    def note(self, blocks: int, tokens: int, reused_tokens: int, duration_ns: int) -> None:
        """Takes up a prompt of so many blocks and tokens, of which some were in the cache already."""
        evaluated = tokens - reused_tokens
        if not blocks or evaluated < LEAST_EVALUATED_TOKENS or duration_ns <= 0:
            return
        measured_s = duration_ns / 1e9 / (blocks * evaluated / tokens)
        known_s = measured_s if self.block_s is None else self.block_s
        self.block_s = known_s + NEWEST_WEIGHT * (measured_s - known_s)


def wait_s(saved_blocks: int, block_s: float | None, share: float) -> float:
    """For how long a task waits for whom keeps so many blocks more: a `share` of what these take here. 0 if
    it is not worth it, or nothing was measured."""
    saved_s = saved_blocks * (block_s or 0.0)
    if not share or saved_s < LEAST_SAVED_S:
        return 0.0
    return min(max(share * saved_s, LEAST_WAIT_S), LONGEST_WAIT_S)
