"""Whether memory is flat."""

from __future__ import annotations

import random

import pytest

from loadtest.trial.memory import MIB, Growth, Sample, growth

RATE = 100.0


def samples(bytes_per_s: float, seconds: int = 600, noise: int = MIB, start: int = 60 * MIB) -> list[Sample]:
    drawn = random.Random(1)
    return [
        Sample(float(at), int(start + bytes_per_s * at + drawn.uniform(-noise, noise)))
        for at in range(0, seconds, 5)
    ]


def found(taken: list[Sample], kept_bytes: float = 0.0) -> Growth:
    result = growth("services.router", 1, taken, RATE, kept_bytes)
    assert result is not None
    return result


def test_noise_is_flat() -> None:
    assert found(samples(0.0)).flat


def test_a_leak_of_half_a_kilobyte_a_request_is_seen_within_ten_minutes() -> None:
    grown = found(samples(512 * RATE))
    assert not grown.flat
    assert grown.bytes_per_request == pytest.approx(512, rel=0.05)


def test_what_a_process_is_to_keep_is_no_leak() -> None:
    assert found(samples(512 * RATE), kept_bytes=600).flat


def test_caches_that_fill_at_the_beginning_are_no_leak() -> None:
    settled = [Sample(one.at_s, one.size + min(40, int(one.at_s)) * MIB) for one in samples(0.0)]
    assert found(settled).flat


def test_a_process_that_was_there_for_a_moment_says_nothing() -> None:
    assert growth("services.agent", 1, samples(0.0, seconds=20), RATE) is None
