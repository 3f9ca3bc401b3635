"""The binary frame between the stages of a pipeline: hidden states of consecutive tokens of one sequence.

A frame is a header of HEADER_BYTES bytes, little-endian, and its payload:

| offset | bytes | field |
|---|---|---|
| 0 | 4 | magic, `CHAF` |
| 4 | 1 | version, 1 |
| 5 | 1 | dtype: 0 f32, 1 f16, 2 q8_0 |
| 6 | 2 | flags: 1 the last token's successor is wanted, 2 the sequence ends here, 4 see below |
| 8 | 8 | epoch of the pipeline's plan |
| 16 | 8 | pipeline |
| 24 | 8 | sequence |
| 32 | 4 | stage that the frame is for |
| 36 | 4 | position of the first token in its sequence |
| 40 | 4 | count of tokens |
| 44 | 4 | width of a hidden state |
| 48 | 4 | length of the payload in bytes |
| 52 | 4 | CRC-32 of the frame without these four bytes |

The payload holds `count` rows of `width` numbers: f32, f16, or q8_0, which is llama.cpp's blocks of 32
numbers as an f16 scale and 32 signed bytes. A frame of no tokens says only that its sequence ends. The
positions of a sequence's frames follow one another, so a frame that was lost shows in the next one.

With the flag 4 the payload begins with a speculation, three numbers of four bytes: the attempt, how many
tokens of the sequence are certain, and the guessed token (-1 for none). Only stages that say in their beats
that they know of guesses are sent one.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from enum import IntEnum, IntFlag
from typing import NamedTuple

from schemas.errors import InvalidRequest, PayloadTooLarge

MAGIC = b"CHAF"
FRAME_VERSION = 1
Q8_0_BLOCK = 32
Q8_0_BLOCK_BYTES = 34
MAX_FRAME_BYTES = 1 << 20
"""What a broker carries unless told otherwise."""
MAX_U64 = (1 << 64) - 1
MAX_I32 = (1 << 31) - 1
MAX_WIDTH = 1 << 20

_FIELDS = struct.Struct("<4sBBHQQQIIIII")
_CHECKSUM = struct.Struct("<I")
_SPECULATION = struct.Struct("<IIi")
_SPECULATES = 4
_NO_GUESS = -1
HEADER_BYTES = _FIELDS.size + _CHECKSUM.size


class Dtype(IntEnum):
    """How the numbers of a payload are encoded."""

    F32 = 0
    F16 = 1
    Q8_0 = 2

    def row_bytes(self, width: int) -> int:
        """The bytes of a row; raises InvalidRequest for a width that is not made of whole blocks."""
        if self is not Dtype.Q8_0:
            return width * (4 if self is Dtype.F32 else 2)
        if width % Q8_0_BLOCK:
            raise InvalidRequest(f"rows of q8_0 are whole blocks of {Q8_0_BLOCK} numbers", field="width")
        return width // Q8_0_BLOCK * Q8_0_BLOCK_BYTES


class Flags(IntFlag):
    """What a frame says beside its numbers."""

    NONE = 0
    WANTS_TOKEN = 1
    ENDS_SEQUENCE = 2


ALL_FLAGS = Flags.WANTS_TOKEN | Flags.ENDS_SEQUENCE


class Speculation(NamedTuple):
    """What a frame says of its place in a text whose next tokens are guessed.

    `token` is the guess whose state the frame holds; None where its token is certain. `certain` tokens of the
    sequence were known when stage 0 sent the frame. `attempt` counts the wrong guesses of this epoch: the
    first frame of another attempt, which is of a certain token, takes the place of what was sent from its
    position on.
    """

    attempt: int
    certain: int
    token: int | None = None


@dataclass(frozen=True, slots=True)
class Frame:
    """Hidden states of tokens `position` to `position + count - 1` of a sequence, on their way to `stage`.

    Frames of an epoch that is over are ignored. Raises InvalidRequest, naming the field, where the fields
    do not fit one another.
    """

    epoch: int
    pipeline: int
    stage: int
    sequence: int
    position: int
    count: int
    width: int
    dtype: Dtype
    payload: bytes | memoryview
    flags: Flags = Flags.NONE
    speculation: Speculation | None = None

    def __post_init__(self) -> None:
        for name in ("epoch", "pipeline", "sequence"):
            _require_within(name, getattr(self, name), 0, MAX_U64)
        for name in ("stage", "position", "count"):
            _require_within(name, getattr(self, name), 0, MAX_I32)
        _require_within("position", self.position + self.count, 0, MAX_I32)
        _require_within("width", self.width, 1, MAX_WIDTH)
        expected = self.count * self.dtype.row_bytes(self.width)
        if len(self.payload) != expected:
            found = len(self.payload)
            raise InvalidRequest(f"the payload has {found} bytes, not {expected}", field="payload")
        if int(self.flags) & ~int(ALL_FLAGS):
            raise InvalidRequest(f"the flags {int(self.flags):#x} are not all known", field="flags")
        if self.speculation is not None and self.count != 1:
            raise InvalidRequest("a frame of a text that is guessed has one token", field="count")
        if self.count == 0 and self.flags != Flags.ENDS_SEQUENCE:
            raise InvalidRequest("a frame without tokens can only end its sequence", field="count")

    def to_bytes(self) -> bytes:
        """The frame on the wire; raises PayloadTooLarge where one message does not carry it."""
        prefix, flags = _speculation_bytes(self.speculation), int(self.flags)
        size = len(prefix) + len(self.payload)
        if HEADER_BYTES + size > MAX_FRAME_BYTES:
            raise PayloadTooLarge(f"a frame has at most {MAX_FRAME_BYTES} bytes; split it", field="payload")
        fields = _FIELDS.pack(
            MAGIC,
            FRAME_VERSION,
            self.dtype,
            flags | _SPECULATES if prefix else flags,
            self.epoch,
            self.pipeline,
            self.sequence,
            self.stage,
            self.position,
            self.count,
            self.width,
            size,
        )
        checksum = zlib.crc32(self.payload, zlib.crc32(prefix, zlib.crc32(fields)))
        return b"".join((fields, _CHECKSUM.pack(checksum), prefix, self.payload))


def read_frame(wire: bytes | memoryview) -> Frame:
    """The frame that to_bytes() made; its payload is a view of `wire`, nothing is copied.

    Raises PayloadTooLarge for more bytes than a frame has, and InvalidRequest for what is not a frame, is
    not whole or was changed on the way.
    """
    view = memoryview(wire)
    if view.nbytes > MAX_FRAME_BYTES:
        raise PayloadTooLarge(f"{view.nbytes} bytes are more than a frame has ({MAX_FRAME_BYTES})")
    if view.nbytes < HEADER_BYTES:
        raise InvalidRequest(f"{view.nbytes} bytes are fewer than the header of a frame", field="frame")
    fields, payload = view[: _FIELDS.size], view[HEADER_BYTES:]
    magic, version, dtype, flags, epoch, pipeline, sequence, *rest = _FIELDS.unpack(fields)
    stage, position, count, width, length = rest
    if magic != MAGIC:
        raise InvalidRequest("this is not a frame: it has another magic number", field="magic")
    if version != FRAME_VERSION:
        raise InvalidRequest(f"frames of version {version} are not known", field="version")
    if length != len(payload):
        raise InvalidRequest(f"a payload of {length} bytes came as {len(payload)}", field="payload")
    if _CHECKSUM.unpack_from(view, _FIELDS.size)[0] != zlib.crc32(payload, zlib.crc32(fields)):
        raise InvalidRequest("the frame was damaged on the way: its checksum differs", field="checksum")
    speculation = None
    if flags & _SPECULATES:
        speculation, payload = _read_speculation(payload)
    return Frame(
        epoch,
        pipeline,
        stage,
        sequence,
        position,
        count,
        width,
        _dtype(dtype),
        payload,
        Flags(flags & ~_SPECULATES),
        speculation,
    )


def split_frame(frame: Frame, max_bytes: int = MAX_FRAME_BYTES) -> Iterator[Frame]:
    """Frames of at most `max_bytes` bytes each, header included, that together hold what `frame` holds;
    only the last has its flags. Their payloads are views, nothing is copied. Raises PayloadTooLarge where
    not even one row fits."""
    if HEADER_BYTES + len(frame.payload) <= max_bytes:
        yield frame
        return
    row_bytes = frame.dtype.row_bytes(frame.width)
    rows = (max_bytes - HEADER_BYTES) // row_bytes
    if rows < 1 and frame.count:
        raise PayloadTooLarge(
            f"a row of {row_bytes} bytes does not fit into a frame of {max_bytes}", field="max_bytes"
        )
    payload = memoryview(frame.payload)
    for start in range(0, max(1, frame.count), max(1, rows)):
        end = min(start + rows, frame.count)
        yield replace(
            frame,
            position=frame.position + start,
            count=end - start,
            payload=payload[start * row_bytes : end * row_bytes],
            flags=frame.flags if end == frame.count else Flags.NONE,
        )


def _speculation_bytes(speculation: Speculation | None) -> bytes:
    if speculation is None:
        return b""
    token = _NO_GUESS if speculation.token is None else speculation.token
    return _SPECULATION.pack(speculation.attempt, speculation.certain, token)


def _read_speculation(payload: memoryview) -> tuple[Speculation, memoryview]:
    """What a payload begins with, and the rest of it."""
    if len(payload) < _SPECULATION.size:
        raise InvalidRequest("a speculation is missing in front of the payload", field="payload")
    attempt, certain, token = _SPECULATION.unpack_from(payload)
    guess = None if token == _NO_GUESS else token
    return Speculation(attempt, certain, guess), payload[_SPECULATION.size :]


def _require_within(name: str, value: int, least: int, most: int) -> None:
    if not least <= value <= most:
        raise InvalidRequest(f"{name} is {value}, not a number from {least} to {most}", field=name)


def _dtype(number: int) -> Dtype:
    if number not in set(Dtype):
        raise InvalidRequest(f"there is no dtype {number}", field="dtype")
    return Dtype(number)
