"""One frame of every dtype, one without tokens, a start and tokens: what the golden .bin files hold."""

from __future__ import annotations

import struct
from dataclasses import replace

from schemas.pipelines.activations import Dtype, Flags, Frame, Speculation
from schemas.pipelines.stage_wire import Item, Outcome, Sent, Start, Token
from schemas.tests.golden.stage_samples import STAGE_SAMPLES

WIDTH = 32


def sample(position: int, count: int, dtype: Dtype, payload: bytes, flags: Flags = Flags.NONE) -> Frame:
    """A frame of one sequence on its way to the second stage."""
    return Frame(
        epoch=3,
        pipeline=0x0123_4567_89AB_CDEF,
        stage=1,
        sequence=7,
        position=position,
        count=count,
        width=WIDTH,
        dtype=dtype,
        payload=payload,
        flags=flags,
    )


FRAMES: dict[str, Frame] = {
    "frame_f32": sample(0, 2, Dtype.F32, struct.pack("<64f", *(n / 4 - 8 for n in range(2 * WIDTH)))),
    "frame_f16": sample(
        2, 1, Dtype.F16, struct.pack("<32e", *(n / 4 - 4 for n in range(WIDTH))), Flags.WANTS_TOKEN
    ),
    "frame_q8_0": sample(3, 1, Dtype.Q8_0, struct.pack("<e32b", 0.25, *range(-16, 16)), Flags.WANTS_TOKEN),
    "frame_end": sample(4, 0, Dtype.F32, b"", Flags.ENDS_SEQUENCE),
}

FRAMES["frame_guess"] = replace(FRAMES["frame_f16"], position=5, speculation=Speculation(2, 4, 311))
FRAMES["frame_certain"] = replace(FRAMES["frame_f16"], position=5, speculation=Speculation(3, 6))

ITEMS: dict[str, Item] = {
    **FRAMES,
    "start": Start(3, 0x0123_4567_89AB_CDEF, 7, 20, STAGE_SAMPLES["sequence_start"].to_bytes()),
    "token": Token(3, 0x0123_4567_89AB_CDEF, 7, 24, 311, 4, Outcome.TOKEN, -0.25, ((311, -0.25), (9, -1.5))),
    "token_end": Token(3, 0x0123_4567_89AB_CDEF, 7, 25, -1, 4, Outcome.GRAMMAR_END, 0.0),
    "sent": Sent(1_700_000_000_123_456_789),
}
