"""Hidden states as the payload of a frame, and back: f32 exact, f16 in half, q8_0 in about a quarter of the
bytes.

Q8_0 is llama.cpp's: blocks of 32 numbers as a scale (f16) and 32 signed bytes. What is restored differs by
at most half a step of the block, a 254th of its largest magnitude, and the rounding of its scale.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from schemas.errors import GenerationFailed, InvalidRequest
from schemas.pipelines.activations import Q8_0_BLOCK, Dtype, Frame
from services.engine.decode.hidden_states import Hidden

LARGEST_F16 = np.float32(65504)
SMALLEST_NORMAL = np.finfo(np.float32).tiny
LARGEST_STEP = np.float32(127)
BLOCK = np.dtype([("scale", "<f2"), ("steps", "i1", (Q8_0_BLOCK,))])


def encode_states(states: Hidden, dtype: Dtype) -> bytes:
    """The payload for hidden states of shape (rows, width). What f16 cannot hold becomes its largest number.

    Raises GenerationFailed for states that are not finite, and InvalidRequest for a width that is not made
    of whole blocks.
    """
    if not np.isfinite(states).all():
        raise GenerationFailed("the hidden states of a stage are not finite")
    if dtype is Dtype.F32:
        return states.astype("<f4", copy=False).tobytes()
    if dtype is Dtype.F16:
        return np.clip(states, -LARGEST_F16, LARGEST_F16).astype("<f2").tobytes()
    return _blocks(states).tobytes()


def decode_states(frame: Frame) -> Hidden:
    """The hidden states of a frame, shape (rows, width), in an array of their own."""
    shape = (frame.count, frame.width)
    if frame.dtype is Dtype.F32:
        return np.frombuffer(frame.payload, dtype="<f4").astype(np.float32).reshape(shape)
    if frame.dtype is Dtype.F16:
        return np.frombuffer(frame.payload, dtype="<f2").astype(np.float32).reshape(shape)
    blocks = np.frombuffer(frame.payload, dtype=BLOCK)
    return (blocks["steps"] * blocks["scale"].astype(np.float32)[:, None]).reshape(shape)


def _blocks(states: Hidden) -> npt.NDArray[np.void]:
    """llama.cpp's quantisation: a step is a 127th of the largest magnitude, halves are rounded away from
    0."""
    if states.shape[-1] % Q8_0_BLOCK:
        raise InvalidRequest(f"rows of q8_0 are whole blocks of {Q8_0_BLOCK} numbers", field="dtype")
    numbers = states.reshape(-1, Q8_0_BLOCK)
    scales = np.abs(numbers).max(axis=1, keepdims=True) / LARGEST_STEP
    inverses = np.divide(np.float32(1), scales, out=np.zeros_like(scales), where=scales >= SMALLEST_NORMAL)
    steps = numbers * inverses
    whole = np.floor(np.abs(steps))
    blocks = np.empty(len(numbers), dtype=BLOCK)
    blocks["scale"] = np.minimum(scales, LARGEST_F16)[:, 0]
    blocks["steps"] = np.copysign(whole + np.floor(2 * (np.abs(steps) - whole)), steps)
    return blocks
