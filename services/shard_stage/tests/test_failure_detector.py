"""Who is taken for dead, and who is not."""

from __future__ import annotations

from infra.demo_models.family import FOLDER
from services.shard_stage.failure_detector import (
    BEAT_INTERVAL_S,
    FIRST_BEAT_S,
    LONGEST_SILENCE_S,
    MOST_LAG_S,
    SILENCE_S,
    TICK_S,
    FailureDetector,
)
from services.shard_stage.tests.helpers.line import plan_of

PLAN = plan_of(FOLDER / "choir-llama.gguf", 2)
STEP_S = TICK_S


def watched(detector: FailureDetector, from_s: float, seconds: float, *alive: int) -> tuple[int, ...]:
    """Who is silent after so long a time of watching, in which some stages were heard."""
    silent: tuple[int, ...] = ()
    for step in range(int(seconds / STEP_S) + 1):
        now_s = from_s + step * STEP_S
        for stage in alive:
            detector.heard(stage, PLAN.stages[stage].instance)
        silent = detector.silent(now_s)
    return silent


def test_a_stage_that_falls_silent_is_noticed_soon() -> None:
    detector = FailureDetector(PLAN, 0.0)
    assert watched(detector, 0.0, 2.0, 0, 1) == ()
    assert watched(detector, 2.0, SILENCE_S + 2 * STEP_S, 0) == (1,)


def test_a_watcher_that_gets_the_processor_rarely_does_not_take_its_own_delay_for_silence() -> None:
    # Given a watcher that looks four times less often than it wants to, each delay of its own a short one
    detector = FailureDetector(PLAN, 0.0)
    watched(detector, 0.0, 2.0, 0, 1)
    late_s = 4 * TICK_S
    assert late_s < MOST_LAG_S
    # When for SILENCE_S by the clock nothing was handed to it, Then nobody is taken for dead
    looks = [detector.silent(2.0 + look * late_s) for look in range(1, int(SILENCE_S / late_s) + 2)]
    assert looks == [()] * len(looks)
    # But whoever stays silent is noticed all the same
    assert any(detector.silent(4.0 + look * late_s) for look in range(20))


def test_a_stage_whose_beats_come_late_is_given_more_time_and_one_that_beats_well_again_is_not() -> None:
    # Given a stage of a starved host: second 1 beats almost only when the limit is over
    detector = FailureDetector(PLAN, 0.0)
    now_s = 0.0
    for _ in range(5):
        assert watched(detector, now_s, 0.9 * SILENCE_S, 0) == ()
        now_s += 0.9 * SILENCE_S
        detector.heard(1, PLAN.stages[1].instance)
    # Then a silence that is a little longer is no death, and one that does not end is
    assert watched(detector, now_s, 1.3 * SILENCE_S, 0) == ()
    assert watched(detector, now_s + 1.3 * SILENCE_S, LONGEST_SILENCE_S, 0) == (1,)
    # And after a minute of punctual beats the limit is the short one again
    for beat in range(int(60 / BEAT_INTERVAL_S)):
        watched(detector, 20.0 + beat * BEAT_INTERVAL_S, BEAT_INTERVAL_S, 0, 1)
    assert watched(detector, 80.0, SILENCE_S + 2 * STEP_S, 0) == (1,)


def test_a_stage_that_was_never_heard_of_is_given_more_time() -> None:
    detector = FailureDetector(PLAN, 0.0)
    assert watched(detector, 0.0, FIRST_BEAT_S - 1, 0) == ()
    assert watched(detector, FIRST_BEAT_S - 1, 2.0, 0) == (1,)


def test_the_death_of_a_process_that_came_back_to_its_place_is_no_lateness_of_the_next() -> None:
    # Given a stage that was dead for seconds and was started again in its own place, as no standby was there
    detector = FailureDetector(PLAN, 0.0)
    watched(detector, 0.0, 2.0, 0, 1)
    watched(detector, 2.0, 3.0, 0)
    detector.follow(PLAN.model_copy(update={"epoch": 2}))
    detector.heard(1, PLAN.stages[1].instance, first=True)
    # When it beats for a moment, and is killed again
    assert watched(detector, 5.0, 1.0, 0, 1) == ()
    # Then that is noticed as soon as the first time
    assert watched(detector, 6.0, SILENCE_S + 2 * STEP_S, 0) == (1,)
    # But a process that was stopped for as long, and goes on, is late
    watched(detector, 7.5, 1.5, 0)
    detector.heard(1, PLAN.stages[1].instance)
    assert watched(detector, 9.0, 2 * SILENCE_S, 0) == ()


def test_a_watcher_that_has_just_come_gives_no_time_to_begin_to_a_stage_that_has_begun() -> None:
    detector = FailureDetector(PLAN, 0.0)
    detector.works(1)
    assert watched(detector, 0.0, SILENCE_S - STEP_S, 0) == ()
    assert watched(detector, SILENCE_S, 2 * STEP_S, 0) == (1,)
    # One that was heard of meanwhile is not taken for silent
    detector = FailureDetector(PLAN, 0.0)
    detector.works(1)
    assert watched(detector, 0.0, FIRST_BEAT_S, 0, 1) == ()


def test_a_watcher_that_was_asleep_takes_nobody_for_dead() -> None:
    detector = FailureDetector(PLAN, 0.0)
    watched(detector, 0.0, 2.0, 0, 1)
    assert detector.silent(60.0) == ()
    assert watched(detector, 60.0, SILENCE_S + 2 * STEP_S, 0) == (1,)


def test_beats_of_an_instance_that_has_no_place_any_more_do_not_count() -> None:
    detector = FailureDetector(PLAN, 0.0)
    watched(detector, 0.0, 1.0, 0, 1)
    for step in range(20):
        detector.heard(0, PLAN.stages[0].instance)
        detector.heard(1, "somebody-else")
        silent = detector.silent(1.0 + step * STEP_S)
    assert silent == (1,)


def test_whoever_takes_a_place_is_given_time_and_the_others_are_listened_to_as_before() -> None:
    detector = FailureDetector(PLAN, 0.0)
    watched(detector, 0.0, 1.0, 0, 1)
    stages = (PLAN.stages[0], PLAN.stages[1].model_copy(update={"instance": "new"}))
    detector.follow(PLAN.model_copy(update={"stages": stages, "epoch": 2}))
    assert watched(detector, 1.0, SILENCE_S + 1.0, 0) == ()
    assert watched(detector, 1.0 + SILENCE_S + 1.0, SILENCE_S + 1.0) == (0,)
