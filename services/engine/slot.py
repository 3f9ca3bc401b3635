"""Slots: the places that sequences have in the KV cache, and which of them a prompt should get."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np

from services.engine.model import Tokens
from services.engine.sequence import Sequence


@dataclass(slots=True)
class Slot:
    """One sequence's place. `cells` are the tokens in the cache, kept when the sequence is done, for the next
    prompt that begins alike. `last_used` orders slots by the time they were freed."""

    index: int
    cells: list[int] = field(default_factory=list)
    sequence: Sequence | None = None
    last_used: int = 0

    @property
    def is_free(self) -> bool:
        """Whether a prompt may move in."""
        return self.sequence is None


def best_slot(slots: Iterable[Slot], prompt: Tokens) -> tuple[Slot, int] | None:
    """The free slot that shares the longest beginning with `prompt`, and its length; of several the one
    that has been free for longest. None if no slot is free."""
    free = [(common_prefix(slot.cells, prompt), slot) for slot in slots if slot.is_free]
    if not free:
        return None
    shared, slot = max(free, key=lambda choice: (choice[0], -choice[1].last_used))
    return slot, shared


def common_prefix(cells: list[int], prompt: Tokens) -> int:
    """How many tokens the two have in common at their beginning."""
    length = min(len(cells), len(prompt))
    differs = np.asarray(cells[:length], dtype=np.int32) != prompt[:length]
    return int(differs.argmax()) if differs.any() else length
