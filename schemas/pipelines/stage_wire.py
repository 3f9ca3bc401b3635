"""Everything that travels on `choir.stage.<pipeline>.<stage>`: frames, starts, tokens, one after another.

A message holds one or more items; each says by its first four bytes what it is. Frames (`CHAF`) are in
`schemas/pipelines/activations.py`. All numbers are little-endian.

A start (`CHAS`), followed by `SequenceStart` as JSON:

| offset | bytes | field |
|---|---|---|
| 0 | 4 | magic, `CHAS` |
| 4 | 1 | version, 1 |
| 5 | 3 | zero |
| 8 | 8 | epoch |
| 16 | 8 | pipeline |
| 24 | 8 | sequence |
| 32 | 4 | position of its first frame in this epoch |
| 36 | 4 | length of the body |
| 40 | 4 | CRC-32 of the start without these four bytes |

A token (`CHAT`), from the last stage to the first, followed by its alternatives as pairs of a token (i32) and
its log probability (f32):

| offset | bytes | field |
|---|---|---|
| 0 | 4 | magic, `CHAT` |
| 4 | 1 | version, 1 |
| 5 | 1 | outcome: 0 a token, 1 the grammar ends here, 2 the model computed no number, 3 the stage failed |
| 6 | 2 | count of alternatives |
| 8 | 8 | epoch |
| 16 | 8 | pipeline |
| 24 | 8 | sequence |
| 32 | 4 | position of the token in its sequence |
| 36 | 4 | the token |
| 40 | 4 | random numbers that the sampler has used for this sequence so far |
| 44 | 4 | log probability of the token, f32; NaN where it is not wanted |
| 48 | 4 | CRC-32 of the token without these four bytes |

A time (`CHAC`) says when the message that it ends was sent:

| offset | bytes | field |
|---|---|---|
| 0 | 4 | magic, `CHAC` |
| 4 | 1 | version, 1 |
| 5 | 3 | zero |
| 8 | 8 | nanoseconds since the epoch, by the sender's clock |
| 16 | 4 | CRC-32 of the time without these four bytes |
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from enum import IntEnum
from math import nan

from schemas.errors import InvalidRequest, PayloadTooLarge
from schemas.pipelines.activations import HEADER_BYTES, MAX_FRAME_BYTES, Frame, read_frame

ITEM_VERSION = 1
START_MAGIC, TOKEN_MAGIC, SENT_MAGIC = b"CHAS", b"CHAT", b"CHAC"
MAGIC_BYTES = 4
FRAME_LENGTH_AT = 48

_START = struct.Struct("<4sB3xQQQII")
_TOKEN = struct.Struct("<4sBBHQQQIiIf")
_SENT = struct.Struct("<4sB3xQ")
_CHECKSUM = struct.Struct("<I")
_LENGTH = struct.Struct("<I")
_ALTERNATIVE = struct.Struct("<if")
START_BYTES = _START.size + _CHECKSUM.size
TOKEN_BYTES = _TOKEN.size + _CHECKSUM.size
SENT_BYTES = _SENT.size + _CHECKSUM.size


class Outcome(IntEnum):
    """What the last stage has for a sequence."""

    TOKEN = 0
    GRAMMAR_END = 1
    NOT_FINITE = 2
    FAILED = 3


@dataclass(frozen=True, slots=True)
class Start:
    """A sequence begins, or goes on at `position` in a new epoch; `body` is a SequenceStart in JSON."""

    epoch: int
    pipeline: int
    sequence: int
    position: int
    body: bytes

    def to_bytes(self) -> bytes:
        """The start on the wire."""
        fields = _START.pack(
            START_MAGIC,
            ITEM_VERSION,
            self.epoch,
            self.pipeline,
            self.sequence,
            self.position,
            len(self.body),
        )
        checksum = zlib.crc32(self.body, zlib.crc32(fields))
        return b"".join((fields, _CHECKSUM.pack(checksum), self.body))


@dataclass(frozen=True, slots=True)
class Token:
    """What follows the first `position` tokens of a sequence. `alternatives` are (token, log probability)."""

    epoch: int
    pipeline: int
    sequence: int
    position: int
    token: int
    draws: int = 0
    outcome: Outcome = Outcome.TOKEN
    logprob: float = nan
    alternatives: tuple[tuple[int, float], ...] = ()

    def to_bytes(self) -> bytes:
        """The token on the wire."""
        fields = _TOKEN.pack(
            TOKEN_MAGIC,
            ITEM_VERSION,
            self.outcome,
            len(self.alternatives),
            self.epoch,
            self.pipeline,
            self.sequence,
            self.position,
            self.token,
            self.draws,
            self.logprob,
        )
        tail = b"".join(_ALTERNATIVE.pack(*pair) for pair in self.alternatives)
        return b"".join((fields, _CHECKSUM.pack(zlib.crc32(tail, zlib.crc32(fields))), tail))


@dataclass(frozen=True, slots=True)
class Sent:
    """When a message was sent."""

    at_ns: int

    def to_bytes(self) -> bytes:
        """The time on the wire."""
        fields = _SENT.pack(SENT_MAGIC, ITEM_VERSION, self.at_ns)
        return fields + _CHECKSUM.pack(zlib.crc32(fields))


Item = Frame | Start | Token | Sent


def pack(
    items: Iterable[Item], max_bytes: int = MAX_FRAME_BYTES, carried: int = MAX_FRAME_BYTES
) -> Iterator[bytes]:
    """Messages of at most `max_bytes` each that together hold the items, in their order. An item that is
    larger is a message of its own. Raises PayloadTooLarge for one that is larger than `carried`, or than
    MAX_FRAME_BYTES."""
    limit = min(carried, MAX_FRAME_BYTES)
    waiting: list[bytes] = []
    size = 0
    for item in items:
        wire = item.to_bytes()
        if len(wire) > limit:
            raise PayloadTooLarge(f"an item of {len(wire)} bytes does not fit into {limit}")
        if waiting and size + len(wire) > max_bytes:
            yield b"".join(waiting)
            waiting, size = [], 0
        waiting.append(wire)
        size += len(wire)
    if waiting:
        yield b"".join(waiting)


def unpack(wire: bytes | memoryview) -> Iterator[Item]:
    """The items of a message, in their order; payloads of frames are views of `wire`.

    Raises InvalidRequest or PayloadTooLarge at the first that is not whole, was changed on the way or is of a
    version or kind that is not known.
    """
    rest = memoryview(wire)
    if rest.nbytes > MAX_FRAME_BYTES:
        raise PayloadTooLarge(f"{rest.nbytes} bytes are more than a message has ({MAX_FRAME_BYTES})")
    if not rest.nbytes:
        raise InvalidRequest("a message without items", field="message")
    while rest.nbytes:
        item, size = _first_of(rest)
        yield item
        rest = rest[size:]


def _first_of(view: memoryview) -> tuple[Item, int]:
    match bytes(view[:MAGIC_BYTES]):
        case b"CHAF":
            size = _frame_bytes(view)
            return read_frame(view[:size]), size
        case b"CHAS":
            return _read_start(view)
        case b"CHAT":
            return _read_token(view)
        case b"CHAC":
            return _read_sent(view)
    raise InvalidRequest("this is no frame, start, token or time", field="magic")


def _frame_bytes(view: memoryview) -> int:
    if view.nbytes < HEADER_BYTES:
        raise InvalidRequest(f"{view.nbytes} bytes are fewer than the header of a frame", field="frame")
    length: int = _LENGTH.unpack_from(view, FRAME_LENGTH_AT)[0]
    return HEADER_BYTES + length


def _read_start(view: memoryview) -> tuple[Start, int]:
    _require(view, START_BYTES)
    _, version, epoch, pipeline, sequence, position, length = _START.unpack_from(view)
    _check_version(version)
    size = START_BYTES + length
    _require(view, size)
    _check_sum(view, _START.size, size)
    return Start(epoch, pipeline, sequence, position, bytes(view[START_BYTES:size])), size


def _read_token(view: memoryview) -> tuple[Token, int]:
    _require(view, TOKEN_BYTES)
    _, version, outcome, count, epoch, pipeline, sequence, position, token, draws, logprob = (
        _TOKEN.unpack_from(view)
    )
    _check_version(version)
    size = TOKEN_BYTES + count * _ALTERNATIVE.size
    _require(view, size)
    _check_sum(view, _TOKEN.size, size)
    if outcome not in set(Outcome):
        raise InvalidRequest(f"there is no outcome {outcome}", field="outcome")
    pairs = tuple(_ALTERNATIVE.iter_unpack(view[TOKEN_BYTES:size]))
    read = Token(epoch, pipeline, sequence, position, token, draws, Outcome(outcome), logprob, pairs)
    return read, size


def _read_sent(view: memoryview) -> tuple[Sent, int]:
    _require(view, SENT_BYTES)
    _, version, at_ns = _SENT.unpack_from(view)
    _check_version(version)
    _check_sum(view, _SENT.size, SENT_BYTES)
    return Sent(at_ns), SENT_BYTES


def _require(view: memoryview, size: int) -> None:
    if view.nbytes < size:
        raise InvalidRequest(f"an item of {size} bytes came as {view.nbytes}", field="length")


def _check_version(version: int) -> None:
    if version != ITEM_VERSION:
        raise InvalidRequest(f"items of version {version} are not known", field="version")


def _check_sum(view: memoryview, checksum_at: int, size: int) -> None:
    found = zlib.crc32(view[checksum_at + _CHECKSUM.size : size], zlib.crc32(view[:checksum_at]))
    if _CHECKSUM.unpack_from(view, checksum_at)[0] != found:
        raise InvalidRequest("the item was damaged on the way: its checksum differs", field="checksum")
