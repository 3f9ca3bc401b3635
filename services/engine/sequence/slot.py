"""Slots: the places that sequences have in the KV cache, and which of them a prompt should get."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Generic, TypeVar

import numpy as np

from schemas.requests.origin import NOBODY, Origin
from services.engine.model.model import Tokens
from services.engine.sequence.sequence import Sequence

# One part in so many of a prompt has to be in a slot already for that to decide.
LEAST_SHARE = 4


S = TypeVar("S", bound=Sequence)


@dataclass(slots=True)
class Slot(Generic[S]):
    """One sequence's place. `cells` are the tokens that are kept in the cache when the sequence is done, for
    the next prompt of the same tenant that begins alike; `origin` is that of the prompt they began with.
    `last_used` orders slots by the time they were freed."""

    index: int
    cells: list[int] = field(default_factory=list)
    sequence: S | None = None
    last_used: int = 0
    origin: Origin = NOBODY

    @property
    def is_free(self) -> bool:
        """Whether a prompt may move in."""
        return self.sequence is None


def best_slot(slots: list[Slot[S]], prompt: Tokens, tenant: str = "") -> tuple[Slot[S], int] | None:
    """The best free slot for `prompt`, and how many tokens it shares with it; None if none is free.

    Best is the one that shares most, if that is worth it: how soon a text begins must not tell a `tenant`
    what another one has asked, so nothing is shared with another's. Otherwise a neighbour of slots in use,
    since llama.cpp evaluates runs of neighbours together; of several the one that has been free for longest.
    """
    free = [
        (slot, common_prefix(slot.cells, prompt) if slot.origin.tenant == tenant else 0)
        for slot in slots
        if slot.is_free
    ]
    if not free:
        return None
    return max(free, key=lambda choice: _worth(choice[0], choice[1], slots, len(prompt)))


def _worth(slot: Slot[S], shared: int, slots: list[Slot[S]], prompt_tokens: int) -> tuple[int, bool, int]:
    worthwhile = shared if shared * LEAST_SHARE >= prompt_tokens else 0
    neighbours = slots[max(0, slot.index - 1) : slot.index + 2]
    return worthwhile, any(not neighbour.is_free for neighbour in neighbours), -slot.last_used


def common_prefix(cells: list[int], prompt: Tokens) -> int:
    """How many tokens the two have in common at their beginning."""
    length = min(len(cells), len(prompt))
    differs = np.asarray(cells[:length], dtype=np.int32) != prompt[:length]
    return int(differs.argmax()) if differs.any() else length
