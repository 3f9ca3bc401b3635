"""How many sequences share a step, by what was measured."""

from __future__ import annotations

from services.engine.batching.batch_size import TRIES, BatchSizeTuner, group_size


def measured(**step_ms: float) -> BatchSizeTuner:
    tuner = BatchSizeTuner()
    for name, ms in step_ms.items():
        for _ in range(TRIES):
            tuner.note(int(name.removeprefix("of_")), ms)
    return tuner


SLOW_PAIRS = measured(of_1=10.0, of_2=25.0, of_4=32.0, of_8=47.0, of_16=90.0)
"""As seen on a CPU: two sequences in a step take longer than two steps of one."""


def test_a_step_between_two_measured_ones_takes_a_time_between_theirs() -> None:
    assert SLOW_PAIRS.step_ms(3) == 28.5
    assert 90.0 < SLOW_PAIRS.step_ms(32) < 180.0
    assert BatchSizeTuner().step_ms(2) > BatchSizeTuner().step_ms(1) > 0


def test_the_best_number_has_the_highest_rate() -> None:
    assert [SLOW_PAIRS.best(most) for most in (1, 2, 4, 8)] == [1, 1, 4, 8]


def test_of_numbers_that_are_nearly_as_good_the_largest_is_taken() -> None:
    assert measured(of_1=10.0, of_2=20.5).best(2) == 2
    assert measured(of_1=10.0, of_2=22.0).best(2) == 1


def test_a_group_leaves_the_other_stages_something_to_do() -> None:
    assert [group_size(SLOW_PAIRS, active, stages=2) for active in (1, 2, 4, 8, 16)] == [1, 1, 1, 4, 8]
    assert group_size(SLOW_PAIRS, 1, stages=5) == 1


def test_micro_batches_that_wait_are_merged_where_that_is_faster() -> None:
    assert SLOW_PAIRS.merged([4, 4]) == 8
    assert SLOW_PAIRS.merged([1, 1]) == 1
    assert SLOW_PAIRS.merged([]) == 0


def test_a_change_of_speed_is_learnt_in_time() -> None:
    tuner = measured(of_1=10.0)
    for _ in range(40):
        tuner.note(1, 20.0)
    assert tuner.step_ms(1) == 20.0


def test_a_step_that_was_held_up_does_not_count_against_its_size() -> None:
    tuner = measured(of_1=10.0, of_2=25.0, of_4=32.0)
    tuner.note(4, 300.0)
    assert tuner.best(4) == 4


def test_a_size_that_was_never_tried_is_tried_whatever_its_neighbours_took() -> None:
    tuner = measured(of_1=9.0, of_2=26.0)
    assert tuner.best(4) == 4
    for _ in range(TRIES):
        tuner.note(4, 31.0)
    assert tuner.best(4) == 4
    assert tuner.best(3) == 1


def test_a_size_that_did_badly_is_tried_again_in_time() -> None:
    tuner = measured(of_1=9.0, of_2=26.0)
    steps = 0
    while tuner.best(2) == 1:
        tuner.note(1, 9.0)
        steps += 1
    assert 3000 < steps < 5000
    tuner.note(2, 26.0)
    assert tuner.best(2) == 1
