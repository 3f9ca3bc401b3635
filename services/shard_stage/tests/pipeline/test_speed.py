"""The rate of tokens, as long as some come."""

from __future__ import annotations

import pytest

from services.shard_stage.pipeline.speed import LEAST_ARRIVALS, Speed


def told(speed: Speed, tokens: int, interval_s: float, from_s: float = 0.0) -> None:
    for number in range(tokens):
        speed.token(from_s + number * interval_s)


def test_before_two_tokens_there_is_no_rate() -> None:
    speed = Speed()
    assert speed.per_s is None
    speed.token(1.0)
    assert speed.per_s is None


def test_the_rate_is_of_the_last_tokens() -> None:
    speed = Speed()
    told(speed, 200, 1.0)
    told(speed, 200, 0.02, from_s=1000.0)
    assert speed.per_s == pytest.approx(50)


def test_a_pause_does_not_count() -> None:
    speed = Speed()
    told(speed, 20, 0.02)
    speed.pause()
    told(speed, 3, 0.5, from_s=3600.0)
    assert speed.per_s == pytest.approx(50), "three tokens say little"
    told(speed, LEAST_ARRIVALS, 0.1, from_s=3601.5)
    assert speed.per_s is not None and speed.per_s < 20


def test_few_tokens_are_better_than_none() -> None:
    speed = Speed()
    told(speed, 3, 0.1)
    assert speed.per_s == pytest.approx(10)
