"""What a stage tells of its last steps."""

from __future__ import annotations

import pytest

from services.shard_stage.pipeline.recent_steps import (
    FEW_STEPS,
    KEPT_STEPS,
    LONGER_S,
    RECENT_S,
    TOLD_ROWS,
    RecentSteps,
)
from services.shard_stage.pipeline.step_stats import StepStats

MS = 1_000_000


class Clock:
    """Seconds as a test sets them."""

    now_s = 0.0

    def __call__(self) -> float:
        return self.now_s


def test_the_median_and_the_spread_of_each_number_of_rows_are_told() -> None:
    steps = RecentSteps(Clock())
    for ms in (10, 10, 10, 10, 90):
        steps.note(1, ms * MS)
    for ms in (10, 20, 30):
        steps.note(4, ms * MS)
    one, four = steps.told()
    assert (one.rows, one.steps, one.median_ms, one.spread) == (1, 5, 10, 0)
    assert (four.rows, four.steps, four.median_ms) == (4, 3, 20)
    assert four.spread == pytest.approx(0.5)


def test_only_the_last_seconds_count_and_a_stage_at_rest_says_nothing() -> None:
    clock = Clock()
    steps = RecentSteps(clock)
    for _ in range(2 * FEW_STEPS):
        steps.note(1, 10 * MS)
    clock.now_s = RECENT_S + 1
    for _ in range(FEW_STEPS):
        steps.note(1, 30 * MS)
    (told,) = steps.told()
    assert (told.steps, told.median_ms, told.spread) == (FEW_STEPS, 30, 0)
    clock.now_s = 2 * RECENT_S + 2
    assert steps.told() == ()


def test_of_slow_steps_as_many_count_as_say_something() -> None:
    clock = Clock()
    steps = RecentSteps(clock)
    for second in range(100):
        clock.now_s = float(3 * second)
        steps.note(4, 3000 * MS)
    (told,) = steps.told()
    assert (told.rows, told.steps) == (4, FEW_STEPS)
    # But not however old they are
    for _ in range(100):
        clock.now_s += 6.0
        steps.note(4, 6000 * MS)
    (told,) = steps.told()
    assert told.steps == LONGER_S / 6 + 1


def test_a_lease_has_room_for_what_is_told_however_many_steps_there_are() -> None:
    steps = RecentSteps(Clock())
    for rows in range(1, 50):
        for _ in range(rows):
            steps.note(rows, MS)
    told = steps.told()
    assert [times.rows for times in told] == list(range(49, 49 - TOLD_ROWS, -1))
    for _ in range(2 * KEPT_STEPS):
        steps.note(1, MS)
    assert sum(times.steps for times in steps.told()) == KEPT_STEPS


def test_steps_with_tokens_of_prompts_are_none_of_them() -> None:
    stats = StepStats()
    stats.stepped(2, 2, 8 * MS, [])
    stats.stepped(2, 65, 80 * MS, [])
    assert [(times.rows, times.median_ms) for times in stats.recent.told()] == [(2, 8.0)]
