from __future__ import annotations

import pytest

from schemas.errors import DeadlineExceeded
from services.engine.sequence.generation import Finished, Generation


def test_waiting_ends_with_the_outcome() -> None:
    generation = Generation(wake=lambda: None)
    generation.resolve(Finished("text", "stop"))
    assert generation.wait().text == "text"


def test_waiting_no_longer_than_allowed_is_an_error() -> None:
    with pytest.raises(DeadlineExceeded):
        Generation(wake=lambda: None).wait(timeout_s=0.01)


def test_cancelling_wakes_the_engine() -> None:
    woken: list[bool] = []
    generation = Generation(wake=lambda: woken.append(True))
    generation.cancel()
    assert generation.cancelled and woken == [True]
