"""Who is taken for dead, and who is not."""

from __future__ import annotations

from infra.models.family import FOLDER
from services.shard_stage.pulse import FIRST_BEAT_S, MOST_LAG_S, SILENCE_S, Pulse
from services.shard_stage.tests.line import plan_of

PLAN = plan_of(FOLDER / "choir-llama.gguf", 2)
STEP_S = MOST_LAG_S / 2


def watched(pulse: Pulse, from_s: float, seconds: float, *alive: int) -> tuple[int, ...]:
    """Who is silent after so long a time of watching, in which some stages were heard."""
    silent: tuple[int, ...] = ()
    for step in range(int(seconds / STEP_S) + 1):
        now_s = from_s + step * STEP_S
        for stage in alive:
            pulse.heard(stage, PLAN.stages[stage].instance, now_s)
        silent = pulse.silent(now_s)
    return silent


def test_a_stage_that_falls_silent_is_noticed_soon() -> None:
    pulse = Pulse(PLAN, 0.0)
    assert watched(pulse, 0.0, 2.0, 0, 1) == ()
    assert watched(pulse, 2.0, SILENCE_S + 2 * STEP_S, 0) == (1,)


def test_a_stage_that_was_never_heard_of_is_given_more_time() -> None:
    pulse = Pulse(PLAN, 0.0)
    assert watched(pulse, 0.0, FIRST_BEAT_S - 1, 0) == ()
    assert watched(pulse, FIRST_BEAT_S - 1, 2.0, 0) == (1,)


def test_a_watcher_that_was_asleep_takes_nobody_for_dead() -> None:
    pulse = Pulse(PLAN, 0.0)
    watched(pulse, 0.0, 2.0, 0, 1)
    assert pulse.silent(60.0) == ()
    assert watched(pulse, 60.0, SILENCE_S + 2 * STEP_S, 0) == (1,)


def test_beats_of_an_instance_that_has_no_place_any_more_do_not_count() -> None:
    pulse = Pulse(PLAN, 0.0)
    watched(pulse, 0.0, 1.0, 0, 1)
    for step in range(20):
        pulse.heard(0, PLAN.stages[0].instance, 1.0 + step * STEP_S)
        pulse.heard(1, "somebody-else", 1.0 + step * STEP_S)
        silent = pulse.silent(1.0 + step * STEP_S)
    assert silent == (1,)


def test_whoever_takes_a_place_is_given_time_and_the_others_are_listened_to_as_before() -> None:
    pulse = Pulse(PLAN, 0.0)
    watched(pulse, 0.0, 1.0, 0, 1)
    stages = (PLAN.stages[0], PLAN.stages[1].model_copy(update={"instance": "new"}))
    pulse.follow(PLAN.model_copy(update={"stages": stages, "epoch": 2}), 1.0)
    assert watched(pulse, 1.0, SILENCE_S + 1.0, 0) == ()
    assert watched(pulse, 1.0 + SILENCE_S + 1.0, SILENCE_S + 1.0) == (0,)
