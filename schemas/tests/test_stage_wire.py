"""What travels between stages, several items to a message: what comes back, and what does not get in."""

from __future__ import annotations

import contextlib
import math
import struct
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.errors import InvalidRequest, PayloadTooLarge
from schemas.pipelines.activations import MAX_FRAME_BYTES
from schemas.pipelines.stage_wire import Item, Outcome, Sent, Start, Token, pack, unpack
from schemas.pipelines.stages import SequenceStart
from schemas.tests.golden.__main__ import FOLDER
from schemas.tests.golden.frames import FRAMES, ITEMS

MESSAGE = b"".join(item.to_bytes() for item in ITEMS.values())

U64, U32, I32 = st.integers(0, 2**64 - 1), st.integers(0, 2**32 - 1), st.integers(-(2**31), 2**31 - 1)
F32 = st.floats(width=32, allow_nan=False)
TOKENS = st.builds(
    Token,
    U64,
    U64,
    U64,
    U32,
    I32,
    U32,
    st.sampled_from(Outcome),
    F32,
    st.lists(st.tuples(I32, F32)).map(tuple),
)
STARTS = st.builds(Start, U64, U64, U64, U32, st.binary(max_size=99))
ANYTHING = st.one_of(TOKENS, STARTS, st.builds(Sent, U64), st.sampled_from(list(FRAMES.values())))


@pytest.mark.parametrize("name", ITEMS)
def test_an_item_comes_back_from_its_golden_file(name: str) -> None:
    (found,) = unpack((FOLDER / f"{name}.bin").read_bytes())
    assert found == ITEMS[name]


def test_the_body_of_a_golden_start_is_a_sequence_start() -> None:
    start = ITEMS["start"]
    assert isinstance(start, Start)
    assert SequenceStart.model_validate_json(start.body).generated


@given(st.lists(ANYTHING, min_size=1, max_size=8))
def test_items_come_back_in_their_order(items: list[Item]) -> None:
    assert [item for message in pack(items) for item in unpack(message)] == items


def test_items_are_spread_over_as_few_messages_as_hold_them() -> None:
    frame = FRAMES["frame_f32"]
    size = len(frame.to_bytes())
    messages = list(pack([frame] * 7, max_bytes=3 * size))
    assert [len(message) // size for message in messages] == [3, 3, 1]


def test_an_item_that_no_message_carries_is_refused() -> None:
    with pytest.raises(PayloadTooLarge):
        list(pack([Start(1, 1, 1, 0, b"x" * MAX_FRAME_BYTES)]))


@given(st.binary(max_size=200))
def test_any_other_bytes_are_refused_with_a_typed_error(wire: bytes) -> None:
    with pytest.raises((InvalidRequest, PayloadTooLarge)):
        list(unpack(wire))


@given(st.integers(0, len(MESSAGE) - 1), st.integers(1, 255))
def test_a_message_with_one_byte_changed_is_refused(place: int, change: int) -> None:
    damaged = bytearray(MESSAGE)
    damaged[place] ^= change
    with pytest.raises((InvalidRequest, PayloadTooLarge)):
        list(unpack(bytes(damaged)))


@given(st.integers(1, len(MESSAGE) - 1))
def test_a_message_cut_short_never_gives_more_than_its_whole_items(length: int) -> None:
    found: list[Item] = []
    with contextlib.suppress(InvalidRequest):
        found += unpack(MESSAGE[:length])
    assert found == list(ITEMS.values())[: len(found)]
    assert sum(len(item.to_bytes()) for item in found) <= length


def test_an_item_of_another_version_is_refused() -> None:
    for item in ITEMS.values():
        wire = bytearray(item.to_bytes())
        wire[4] = 2
        with pytest.raises(InvalidRequest, match="version"):
            list(unpack(bytes(wire)))


def test_a_message_larger_than_the_broker_carries_is_refused() -> None:
    with pytest.raises(PayloadTooLarge):
        list(unpack(b"CHAF" + bytes(MAX_FRAME_BYTES)))


def test_a_token_without_a_wanted_probability_has_none() -> None:
    (token,) = unpack(replace(Token(1, 1, 1, 1, 5)).to_bytes())
    assert isinstance(token, Token) and math.isnan(token.logprob)


def test_a_claimed_length_beyond_the_message_is_refused() -> None:
    wire = bytearray(ITEMS["start"].to_bytes())
    struct.pack_into("<I", wire, 36, 2**31)
    with pytest.raises(InvalidRequest):
        list(unpack(bytes(wire)))
