"""When stages are taken to have lost something, and when they only take their time."""

from __future__ import annotations

from schemas.pipelines.stages import StageBeat
from services.shard_stage.pipeline.rest import RESTING_BEATS, Rest


def beat(stage: int, *, idle: bool = True, progress: int = 7) -> StageBeat:
    return StageBeat(
        pipeline=1, epoch=1, stage=stage, instance=f"s{stage}", ready=True, idle=idle, progress=progress
    )


def rest_of(stages: int) -> Rest:
    rest = Rest()
    rest.begin(stages)
    return rest


def test_stages_that_all_rest_have_nothing_on_its_way() -> None:
    rest = rest_of(2)
    for _ in range(RESTING_BEATS):
        assert not rest.lost(waits=True)
        rest.heard(beat(0))
        rest.heard(beat(1))
    rest.heard(beat(0))
    rest.heard(beat(1))
    assert rest.lost(waits=True)


def test_rest_from_before_a_question_does_not_count_when_it_is_asked() -> None:
    # Given stages that have had nothing to do for long, since nothing was asked
    rest = rest_of(2)
    for _ in range(2 * RESTING_BEATS):
        rest.heard(beat(0))
        rest.heard(beat(1))
        assert not rest.lost(waits=False)
    # When a token is waited for, Then nothing is lost until they have rested as long again
    for _ in range(RESTING_BEATS):
        assert not rest.lost(waits=True)
        rest.heard(beat(0))
        rest.heard(beat(1))


def test_a_stage_that_works_at_one_step_for_ever_is_waited_for() -> None:
    rest = rest_of(2)
    for _ in range(10 * RESTING_BEATS):
        rest.heard(beat(0))
        rest.heard(beat(1, idle=False))
    assert not rest.lost(waits=True)


def test_a_stage_that_rests_whenever_it_is_looked_at_and_gets_on_is_waited_for() -> None:
    rest = rest_of(2)
    for number in range(10 * RESTING_BEATS):
        rest.heard(beat(0))
        rest.heard(beat(1, progress=number))
    assert not rest.lost(waits=True)


def test_a_stage_that_is_not_heard_of_is_not_at_rest() -> None:
    rest = rest_of(2)
    for _ in range(10 * RESTING_BEATS):
        rest.heard(beat(0))
        rest.heard(beat(5))
    assert not rest.lost(waits=True)


def test_with_another_epoch_all_begin_anew() -> None:
    rest = rest_of(1)
    for _ in range(2 * RESTING_BEATS):
        rest.heard(beat(0))
    rest.begin(1)
    assert not rest.lost(waits=True)
