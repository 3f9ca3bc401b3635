"""The binary frame between stages: what comes back from the wire, and what does not get in."""

from __future__ import annotations

import struct
import zlib
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.errors import InvalidRequest, PayloadTooLarge
from schemas.pipelines.activations import (
    HEADER_BYTES,
    MAX_FRAME_BYTES,
    MAX_I32,
    MAX_U64,
    Dtype,
    Flags,
    Frame,
    Speculation,
    read_frame,
    split_frame,
)
from schemas.tests.golden.__main__ import FOLDER
from schemas.tests.golden.frames import FRAMES

CHECKSUM_AT = HEADER_BYTES - 4
SAMPLE = FRAMES["frame_f32"]

NUMBERS = st.integers(0, 2**32 - 1)
SPECULATIONS = st.none() | st.builds(
    Speculation,
    NUMBERS,
    NUMBERS,
    st.none() | st.integers(-(2**31), MAX_I32).filter(lambda token: token != -1),
)


@st.composite
def frames(draw: st.DrawFn) -> Frame:
    """Any frame of a few tokens."""
    dtype = draw(st.sampled_from(Dtype))
    width = draw(st.integers(1, 3)) * (32 if dtype is Dtype.Q8_0 else 1)
    count = draw(st.integers(0, 5))
    size = count * dtype.row_bytes(width)
    flags = st.sampled_from([Flags.NONE, Flags.WANTS_TOKEN, Flags.WANTS_TOKEN | Flags.ENDS_SEQUENCE])
    return Frame(
        epoch=draw(st.integers(0, MAX_U64)),
        pipeline=draw(st.integers(0, MAX_U64)),
        stage=draw(st.integers(0, MAX_I32)),
        sequence=draw(st.integers(0, MAX_U64)),
        position=draw(st.integers(0, MAX_I32 - count)),
        count=count,
        width=width,
        dtype=dtype,
        payload=draw(st.binary(min_size=size, max_size=size)),
        flags=draw(flags) if count else Flags.ENDS_SEQUENCE,
        speculation=draw(SPECULATIONS) if count == 1 else None,
    )


def sealed(wire: bytes) -> bytes:
    """The same bytes with the checksum that they ought to have."""
    checksum = zlib.crc32(wire[HEADER_BYTES:], zlib.crc32(wire[:CHECKSUM_AT]))
    return wire[:CHECKSUM_AT] + struct.pack("<I", checksum) + wire[HEADER_BYTES:]


def changed(offset: int, layout: str, value: int) -> bytes:
    """A sample with another number at `offset`, and a checksum that fits."""
    wire = bytearray(SAMPLE.to_bytes())
    struct.pack_into(layout, wire, offset, value)
    return sealed(bytes(wire))


@pytest.mark.parametrize("name", FRAMES)
def test_a_frame_comes_back_from_its_golden_file(name: str) -> None:
    assert read_frame((FOLDER / f"{name}.bin").read_bytes()) == FRAMES[name]


@given(frames())
def test_a_frame_comes_back_from_the_wire(frame: Frame) -> None:
    assert read_frame(frame.to_bytes()) == frame
    assert read_frame(memoryview(frame.to_bytes())) == frame


def test_a_payload_that_was_read_is_a_view_and_no_copy() -> None:
    wire = SAMPLE.to_bytes()
    payload = read_frame(wire).payload
    assert isinstance(payload, memoryview)
    assert payload.obj is wire


def test_the_header_is_what_the_table_says() -> None:
    wire = FRAMES["frame_q8_0"].to_bytes()
    assert len(wire) == HEADER_BYTES + 34 == 90
    assert wire[:8] == b"CHAF\x01\x02\x01\x00"
    assert struct.unpack_from("<QQQ", wire, 8) == (3, 0x0123_4567_89AB_CDEF, 7)
    assert struct.unpack_from("<IIIII", wire, 32) == (1, 3, 1, 32, 34)


@given(st.binary(max_size=300))
def test_arbitrary_bytes_are_refused(wire: bytes) -> None:
    with pytest.raises(InvalidRequest):
        read_frame(wire)


@given(st.binary(min_size=HEADER_BYTES - 4, max_size=200))
def test_arbitrary_bytes_with_the_right_beginning_and_checksum_are_a_frame_or_refused(tail: bytes) -> None:
    try:
        frame = read_frame(sealed(b"CHAF\x01" + tail))
    except InvalidRequest as error:
        assert error.field
    else:
        assert read_frame(frame.to_bytes()) == frame


@given(st.data(), frames())
def test_a_truncated_frame_is_refused(data: st.DataObject, frame: Frame) -> None:
    wire = frame.to_bytes()
    with pytest.raises(InvalidRequest):
        read_frame(wire[: data.draw(st.integers(0, len(wire) - 1))])


@given(frames(), st.binary(min_size=1, max_size=20))
def test_a_frame_with_something_behind_it_is_refused(frame: Frame, more: bytes) -> None:
    with pytest.raises(InvalidRequest, match="came as"):
        read_frame(frame.to_bytes() + more)


@given(st.data(), frames())
def test_a_frame_with_a_flipped_bit_is_refused(data: st.DataObject, frame: Frame) -> None:
    wire = bytearray(frame.to_bytes())
    bit = data.draw(st.integers(0, len(wire) * 8 - 1))
    wire[bit // 8] ^= 1 << bit % 8
    with pytest.raises(InvalidRequest):
        read_frame(bytes(wire))


def test_more_than_a_message_carries_is_neither_read_nor_written() -> None:
    with pytest.raises(PayloadTooLarge):
        read_frame(bytes(MAX_FRAME_BYTES + 1))
    rows = MAX_FRAME_BYTES // 128
    with pytest.raises(PayloadTooLarge, match="split it"):
        replace(SAMPLE, count=rows, payload=bytes(rows * 128)).to_bytes()


@pytest.mark.parametrize(
    ("wire", "field"),
    [
        (changed(0, "<I", 0), "magic"),
        (changed(4, "<B", 2), "version"),
        (changed(5, "<B", 3), "dtype"),
        (changed(5, "<B", 1), "payload"),
        (changed(6, "<H", 8), "flags"),
        (changed(36, "<I", MAX_I32 - 1), "position"),
        (changed(36, "<I", MAX_I32 + 1), "position"),
        (changed(40, "<I", 3), "payload"),
        (changed(40, "<I", 2**32 - 1), "count"),
        (changed(44, "<I", 0), "width"),
        (changed(44, "<I", 2**32 - 1), "width"),
        (changed(48, "<I", 2**32 - 1), "payload"),
    ],
)
def test_numbers_that_cannot_be_are_refused_by_name(wire: bytes, field: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        read_frame(wire)
    assert caught.value.field == field


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"epoch": -1}, "epoch"),
        ({"sequence": 2**64}, "sequence"),
        ({"dtype": Dtype.Q8_0, "width": 33}, "width"),
        ({"count": 0, "payload": b""}, "count"),
        ({"count": 0, "payload": b"", "flags": Flags.WANTS_TOKEN}, "count"),
        ({"flags": Flags(8)}, "flags"),
    ],
)
def test_a_frame_whose_fields_do_not_fit_is_not_made(fields: dict[str, Any], field: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        replace(SAMPLE, **fields)
    assert caught.value.field == field


@given(frames(), st.integers(HEADER_BYTES + 3 * 128, 1_000))
def test_a_frame_is_split_into_frames_that_follow_one_another(frame: Frame, max_bytes: int) -> None:
    pieces = list(split_frame(frame, max_bytes))
    assert b"".join(piece.payload for piece in pieces) == frame.payload
    assert sum(piece.count for piece in pieces) == frame.count
    assert all(len(piece.to_bytes()) <= max_bytes for piece in pieces)
    assert [piece.flags for piece in pieces] == [Flags.NONE] * (len(pieces) - 1) + [frame.flags]
    position = frame.position
    for piece in pieces:
        assert piece.position == position
        position += piece.count


def test_a_batch_of_many_tokens_becomes_few_frames() -> None:
    batch = replace(SAMPLE, count=20_000, payload=bytes(20_000 * 128), flags=Flags.WANTS_TOKEN)
    assert [piece.count for piece in split_frame(batch)] == [8_191, 8_191, 3_618]


def test_a_row_that_does_not_fit_into_a_frame_is_refused() -> None:
    assert len(list(split_frame(SAMPLE, HEADER_BYTES + 128))) == 2
    for max_bytes in (0, HEADER_BYTES, HEADER_BYTES + 127):
        with pytest.raises(PayloadTooLarge, match="a row of 128 bytes"):
            list(split_frame(SAMPLE, max_bytes))
