"""Rows of a stage's batch: tokens or hidden states of several sequences, in an order that llama.cpp keeps."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from schemas.errors import InvalidRequest
from services.engine.decode.hidden_states import Hidden
from services.engine.model.model import Tokens

Integers = npt.NDArray[np.int32]


class RowGroup(NamedTuple):
    """Consecutive tokens of one sequence from `position` on: `inputs` are tokens, shape (n,), or hidden
    states, shape (n, width)."""

    slot: int
    position: int
    inputs: Tokens | Hidden


@dataclass(frozen=True, slots=True)
class Rows:
    """What a stage evaluates in one step, by ascending slot and, within one, by ascending position."""

    slots: Integers
    positions: Integers
    inputs: Tokens | Hidden

    @classmethod
    def of(cls, groups: Iterable[RowGroup]) -> Rows:
        """The rows of groups, put in order. Raises InvalidRequest where a slot's positions are not
        consecutive, or some groups are tokens and others hidden states."""
        ordered = sorted(groups, key=_place)
        if len({(group.inputs.dtype.kind, *group.inputs.shape[1:]) for group in ordered}) != 1:
            raise InvalidRequest("a step needs parts, either of tokens or of hidden states", field="rows")
        slots: list[int] = []
        positions: list[int] = []
        for slot, position, rows_of_group in ordered:
            slots += [slot] * len(rows_of_group)
            positions += range(position, position + len(rows_of_group))
        inputs = (
            ordered[0].inputs if len(ordered) == 1 else np.concatenate([group.inputs for group in ordered])
        )
        rows = cls(np.array(slots, dtype=np.int32), np.array(positions, dtype=np.int32), inputs)
        rows.check()
        return rows

    def __len__(self) -> int:
        return len(self.slots)

    def check(self) -> None:
        """Raises InvalidRequest unless the rows are in order, without a gap within a slot."""
        if not len(self) or not len(self.slots) == len(self.positions) == len(self.inputs):
            raise InvalidRequest("a step needs a slot, a position and an input for every row", field="rows")
        if len(self) == 1:
            return
        slot_steps, position_steps = np.diff(self.slots), np.diff(self.positions)
        if (slot_steps < 0).any() or (position_steps[slot_steps == 0] != 1).any():
            raise InvalidRequest("the rows of a step are out of order or leave a position out", field="rows")

    def take(self, indices: npt.NDArray[np.intp]) -> Rows:
        """Some of the rows."""
        return Rows(self.slots[indices], self.positions[indices], self.inputs[indices])

    def equal_pieces(self, limit: int) -> Iterator[npt.NDArray[np.intp]]:
        """The rows' indices in pieces of at most `limit`: neighbouring slots, each with the same number of
        rows.

        These are the pieces in which llama.cpp evaluates a batch where every slot has cells of its own.
        Given one at a time, it leaves the order of the rows as it is.
        """
        slots, starts = np.unique(self.slots, return_index=True)
        ends = [*starts[1:].tolist(), len(self)]
        left = dict(zip(slots.tolist(), zip(starts.tolist(), ends, strict=True), strict=True))
        while left:
            run = _first_run(list(left))[:limit]
            length = min(limit // len(run), *(end - start for start, end in map(left.__getitem__, run)))
            yield np.concatenate([np.arange(left[slot][0], left[slot][0] + length) for slot in run])
            for slot in run:
                start, end = left.pop(slot)
                if start + length < end:
                    left[slot] = (start + length, end)
            left = dict(sorted(left.items()))


def _place(group: RowGroup) -> tuple[int, int]:
    return group.slot, group.position


def _first_run(slots: list[int]) -> list[int]:
    """The beginning of ascending numbers up to the first gap."""
    return [slot for index, slot in enumerate(slots) if slot == slots[0] + index]
