"""Rows of a stage's batch, and the pieces in which llama.cpp keeps their order."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.errors import InvalidRequest
from services.engine.decode.rows import RowGroup, Rows


def tokens(*numbers: int) -> np.ndarray[tuple[int], np.dtype[np.int32]]:
    return np.array(numbers, dtype=np.int32)


def rows_of(lengths: dict[int, int]) -> Rows:
    return Rows.of(RowGroup(slot, 10, tokens(*range(length))) for slot, length in lengths.items())


def test_parts_are_put_in_order_of_slot_and_position() -> None:
    rows = Rows.of([RowGroup(2, 5, tokens(50)), RowGroup(0, 7, tokens(71, 72)), RowGroup(0, 6, tokens(60))])
    assert rows.slots.tolist() == [0, 0, 0, 2]
    assert rows.positions.tolist() == [6, 7, 8, 5]
    assert rows.inputs.tolist() == [60, 71, 72, 50]


@pytest.mark.parametrize(
    "parts",
    [
        [],
        [RowGroup(0, 0, tokens())],
        [RowGroup(0, 0, tokens(1)), RowGroup(0, 2, tokens(1))],
        [RowGroup(0, 0, tokens(1, 2)), RowGroup(0, 1, tokens(3))],
        [RowGroup(0, 0, tokens(1)), RowGroup(1, 0, np.zeros((1, 4), dtype=np.float32))],
        [
            RowGroup(0, 0, np.zeros((1, 4), dtype=np.float32)),
            RowGroup(1, 0, np.zeros((1, 5), dtype=np.float32)),
        ],
    ],
)
def test_parts_that_do_not_go_together_are_refused(parts: list[RowGroup]) -> None:
    with pytest.raises(InvalidRequest) as caught:
        Rows.of(parts)
    assert caught.value.field == "rows"


def test_neighbouring_slots_share_a_piece_as_long_as_both_have_rows() -> None:
    rows = rows_of({0: 1, 1: 3, 3: 2})
    assert [piece.tolist() for piece in rows.equal_pieces(8)] == [[0, 1], [2, 3], [4, 5]]


@given(st.dictionaries(st.integers(0, 9), st.integers(1, 9), min_size=1), st.integers(1, 16))
def test_pieces_are_small_equal_of_neighbours_and_hold_every_row_once_in_order(
    lengths: dict[int, int], limit: int
) -> None:
    rows = rows_of(lengths)
    pieces = list(rows.equal_pieces(limit))
    assert sorted(np.concatenate(pieces).tolist()) == list(range(len(rows)))
    done: dict[int, int] = {}
    for piece in pieces:
        slots, counts = np.unique(rows.slots[piece], return_counts=True)
        assert len(piece) <= limit
        assert len(set(counts.tolist())) == 1
        assert (np.diff(slots) == 1).all()
        for slot, position in zip(rows.slots[piece].tolist(), rows.positions[piece].tolist(), strict=True):
            assert position == done.get(slot, 9) + 1
            done[slot] = position
