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
# Fewer tokens of a text that has ended are evaluated again sooner than its cells are copied.
LEAST_TAIL = 32

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
    return worthwhile, _has_busy_neighbour(slot, slots), -slot.last_used


def _has_busy_neighbour(slot: Slot[S], slots: list[Slot[S]]) -> bool:
    neighbours = slots[max(0, slot.index - 1) : slot.index + 2]
    return any(not neighbour.is_free for neighbour in neighbours)


def place_of_a_copy(slots: list[Slot[S]], source: Slot[S], shared: int) -> Slot[S] | None:
    """The free slot to which the cells of `source` are copied for a prompt that shares so many of its tokens,
    so that both texts can be gone on with; None where nothing is lost without that, or more with it.

    A slot that was used later than the source is worth more than the rest of the source's text.
    """
    if source.is_free and len(source.cells) - shared < LEAST_TAIL:
        return None
    places = [
        slot
        for slot in slots
        if slot.is_free and slot is not source and (not source.is_free or slot.last_used < source.last_used)
    ]
    return max(places, key=lambda slot: (_has_busy_neighbour(slot, slots), -slot.last_used), default=None)


def best_donor(slots: list[Slot[S]], prompt: Tokens, tenant: str) -> tuple[Slot[S], int] | None:
    """The slot in work whose text begins most like `prompt`, and how many tokens it shares of those that are
    evaluated; None if that is not worth it."""
    donors = [
        (slot, common_prefix(slot.sequence.tokens[: slot.sequence.kept], prompt))
        for slot in slots
        if slot.sequence is not None and slot.origin.tenant == tenant
    ]
    best = max(donors, key=lambda choice: choice[1], default=None)
    return best if best is not None and best[1] * LEAST_SHARE >= len(prompt) else None


def common_prefix(cells: list[int], prompt: Tokens) -> int:
    """How many tokens the two have in common at their beginning."""
    length = min(len(cells), len(prompt))
    differs = np.asarray(cells[:length], dtype=np.int32) != prompt[:length]
    return int(differs.argmax()) if differs.any() else length
