"""Hidden states over the wire: what each dtype keeps of them."""

from __future__ import annotations

import gguf
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.errors import GenerationFailed, InvalidRequest
from schemas.pipelines.activations import Dtype, Frame, read_frame
from services.engine.decode.activation_codec import decode_states, encode_states
from services.engine.decode.hidden_states import Hidden

WIDTH = 64
HALF_STEP = 1 / 254
F16_ROUNDING = 2.0**-11
F16_SMALLEST = 2.0**-24


def over_the_wire(states: Hidden, dtype: Dtype) -> Hidden:
    """What the next stage gets of hidden states."""
    frame = Frame(
        epoch=1,
        pipeline=1,
        stage=1,
        sequence=1,
        position=0,
        count=len(states),
        width=states.shape[1],
        dtype=dtype,
        payload=encode_states(states, dtype),
    )
    return decode_states(read_frame(frame.to_bytes()))


def states_of(seed: int, exponent: int) -> Hidden:
    """Normal states of a magnitude, with an outlier in a block, a block of zeros, and a constant one."""
    states = np.random.default_rng(seed).normal(0, 2.0**exponent, (3, WIDTH)).astype(np.float32)
    states[0, 5] *= 40
    states[1, :32] = 0
    states[2, 32:] = -(2.0**exponent)
    return states


magnitudes = given(st.integers(0, 2**32), st.integers(-20, 7))


@magnitudes
def test_f32_keeps_every_bit(seed: int, exponent: int) -> None:
    states = states_of(seed, exponent)
    assert np.array_equal(over_the_wire(states, Dtype.F32), states)


@magnitudes
def test_f16_rounds_to_eleven_bits(seed: int, exponent: int) -> None:
    states = states_of(seed, exponent)
    error = np.abs(over_the_wire(states, Dtype.F16) - states)
    assert (error <= np.abs(states) * F16_ROUNDING + F16_SMALLEST / 2).all()


@magnitudes
def test_q8_0_is_off_by_half_a_step_of_the_block_at_most(seed: int, exponent: int) -> None:
    states = states_of(seed, exponent)
    error = np.abs(over_the_wire(states, Dtype.Q8_0) - states).reshape(-1, 32)
    largest = np.abs(states).reshape(-1, 32).max(axis=1, keepdims=True)
    bound = largest * (HALF_STEP * (1 + 1e-5) + F16_ROUNDING) + 127 * F16_SMALLEST / 2
    assert (error <= bound).all()


@magnitudes
def test_q8_0_is_that_of_llama_cpp_byte_for_byte(seed: int, exponent: int) -> None:
    states = states_of(seed, exponent)
    theirs = gguf.quants.quantize(states, gguf.GGMLQuantizationType.Q8_0)
    assert encode_states(states, Dtype.Q8_0) == theirs.tobytes()
    restored = gguf.quants.dequantize(theirs, gguf.GGMLQuantizationType.Q8_0)
    assert np.array_equal(over_the_wire(states, Dtype.Q8_0), restored)


def test_a_token_takes_four_two_or_about_one_byte_for_a_number() -> None:
    states = states_of(0, 0)
    assert [len(encode_states(states, dtype)) // 3 for dtype in Dtype] == [256, 128, 68]


def test_numbers_beyond_f16_become_its_largest() -> None:
    states = np.full((1, WIDTH), -1e30, dtype=np.float32)
    assert (over_the_wire(states, Dtype.F16) == -65504).all()
    assert (over_the_wire(states, Dtype.Q8_0) == -65504 * 127).all()


def test_numbers_too_small_for_a_scale_become_zero() -> None:
    states = np.full((1, WIDTH), 1e-42, dtype=np.float32)
    assert (over_the_wire(states, Dtype.Q8_0) == 0).all()


@pytest.mark.parametrize("dtype", Dtype)
@pytest.mark.parametrize("broken", [np.nan, np.inf, -np.inf])
def test_states_that_are_not_finite_are_not_sent(dtype: Dtype, broken: float) -> None:
    states = states_of(0, 0)
    states[2, 3] = broken
    with pytest.raises(GenerationFailed, match="not finite"):
        encode_states(states, dtype)


def test_a_width_that_is_not_made_of_blocks_has_no_q8_0() -> None:
    with pytest.raises(InvalidRequest, match="whole blocks of 32"):
        encode_states(np.zeros((2, 48), dtype=np.float32), Dtype.Q8_0)
