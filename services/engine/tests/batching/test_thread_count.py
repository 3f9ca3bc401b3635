"""How many threads a step has, by what was measured. The times are those of two cores and the 24-layer model
of the benchmarks: alone, and beside another such process."""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest

from services.engine.batching.thread_count import LONGEST_WAIT, PAIRS, PATIENCE, ThreadTuner

ALONE = {1: 20.0, 2: 14.7}
CROWDED = {1: 23.0, 2: 77.0}

StepMs = Callable[[int, int], float]
"""The milliseconds of a step of so many rows with so many threads."""


class Steps:
    """Steps of one engine, one after another, on a clock of their own."""

    def __init__(self, most: int = 2) -> None:
        self.tuner = ThreadTuner(most)
        self.threads: list[int] = []
        self.now_ms = 0.0

    def take(self, count: int, step_ms: StepMs, rows: int = 1) -> float:
        """Their time."""
        began_ms = self.now_ms
        for _ in range(count):
            threads = self.tuner.next(rows)
            ms = step_ms(rows, threads)
            self.threads.append(threads)
            self.tuner.note(rows, threads, ms)
            self.now_ms += ms
        return self.now_ms - began_ms


def alone(rows: int, threads: int) -> float:
    return ALONE[threads]


def crowded(rows: int, threads: int) -> float:
    return CROWDED[threads]


def test_a_model_begins_with_all_threads() -> None:
    steps = Steps(4)
    steps.take(3, lambda rows, threads: 10.0)
    assert steps.threads == [4] * 3
    assert steps.tuner.settled(1) == steps.tuner.settled(512) == 4


def test_alone_looking_for_others_costs_less_than_two_percent() -> None:
    steps = Steps()
    assert steps.take(3000, alone) < 1.02 * 3000 * ALONE[2]
    assert 0 < steps.threads.count(1) < 100
    assert steps.tuner.settled(1) == 2


@pytest.mark.parametrize("seed", range(5))
def test_steps_that_scatter_cost_no_more(seed: int) -> None:
    noise = random.Random(seed)
    steps = Steps()
    spent_ms = steps.take(3000, lambda rows, threads: ALONE[threads] * noise.uniform(0.85, 1.15))
    assert spent_ms < 1.02 * 3000 * ALONE[2]
    assert steps.tuner.settled(1) == 2


def test_beside_another_process_there_are_fewer_threads_soon_and_all_again_when_it_is_gone() -> None:
    steps = Steps()
    steps.take(500, alone)
    steps.take(20, crowded)
    assert steps.tuner.settled(1) == 1
    assert steps.take(1000, crowded) < 1.03 * 1000 * CROWDED[1]
    steps.take(LONGEST_WAIT + 2 * PAIRS, alone)
    assert steps.tuner.settled(1) == 2


CORES = {(1, 1): 23.0, (1, 2): 30.0, (2, 1): 45.0, (2, 2): 77.0}
"""The milliseconds of a step by its threads and by those of the neighbour."""


def test_two_engines_on_the_same_cores_come_to_one_thread_each() -> None:
    """Given two that begin with both threads, who knows nothing of the other."""
    engines = [Steps(), Steps()]
    while min(engine.now_ms for engine in engines) < 20_000:
        behind = min(engines, key=lambda engine: engine.now_ms)
        (other,) = [engine for engine in engines if engine is not behind]
        theirs = other.threads[-1] if other.threads else 2
        behind.take(1, lambda rows, threads, theirs=theirs: CORES[threads, theirs])  # type: ignore[misc]
    for engine in engines:
        assert engine.tuner.settled(1) == 1
        assert len(engine.threads) > 0.9 * 20_000 / CORES[1, 1]


def test_a_step_that_was_held_up_changes_nothing() -> None:
    steps = Steps()
    for _ in range(200):
        steps.take(9, alone)
        steps.take(1, lambda rows, threads: 500.0)
    assert steps.threads.count(2) > 0.95 * len(steps.threads)


def test_steps_of_different_rows_are_not_compared() -> None:
    """Three rows with both threads take longer than four with one would if they were compared."""
    times = {(3, 2): 40.0, (3, 1): 75.0, (4, 2): 20.0, (4, 1): 38.0}
    steps = Steps()
    for _ in range(400):
        steps.take(1, lambda rows, threads: times[rows, threads], rows=3)
        steps.take(1, lambda rows, threads: times[rows, threads], rows=4)
    assert steps.tuner.settled(3) == 2
    assert steps.threads.count(1) < 0.05 * len(steps.threads)


def test_what_is_best_for_one_row_need_not_be_for_sixteen() -> None:
    """As where one row is bound by memory, and sixteen by arithmetic."""
    times = {(1, 1): 20.0, (1, 2): 22.0, (16, 1): 190.0, (16, 2): 100.0}
    steps = Steps()
    for _ in range(50):
        for rows in (1, 16):
            steps.take(10, lambda rows, threads: times[rows, threads], rows=rows)
    assert (steps.tuner.settled(1), steps.tuner.settled(16)) == (1, 2)


def test_of_many_threads_as_many_are_left_as_are_fastest() -> None:
    times = {8: 90.0, 4: 50.0, 2: 30.0, 1: 40.0}
    steps = Steps(8)
    steps.take(200, lambda rows, threads: times[threads])
    assert steps.tuner.settled(1) == 2
    gone = {8: 8.0, 4: 12.0, 2: 20.0, 1: 40.0}
    steps.take(2 * LONGEST_WAIT, lambda rows, threads: gone[threads])
    assert steps.tuner.settled(1) == 8


def test_a_trial_whose_size_never_comes_again_ends() -> None:
    steps = Steps()
    steps.take(9, alone, rows=3)
    steps.take(PATIENCE + 1, crowded, rows=4)
    steps.take(4 * PATIENCE, crowded, rows=4)
    assert steps.tuner.settled(4) == 1


def test_one_thread_stays_one() -> None:
    steps = Steps(1)
    steps.take(300, lambda rows, threads: 10.0)
    assert set(steps.threads) == {1}
