"""When the cut of a running pipeline is moved, and where to."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import pytest

from schemas.nodes.lease import NodeLease, ServedModel
from schemas.pipelines.plan import CutMove, PipelinePlan, Shard, StageHeld, StepTimes
from services.router.placement.cuts.measured import MEDIAN_ERROR, MOST_ERROR
from services.router.placement.cuts.rebalance import (
    AGREEING,
    CALM_RESTS,
    MOST_REST_S,
    Trend,
    Window,
    next_move,
    weighed,
)
from services.router.placement.cuts.stakes import HORIZON_S
from services.router.placement.replan import INTERRUPTION_MS, improved
from services.router.placement.tests.offering import LAYERS, MODEL, lease, shardable, stage_memory
from services.router.placement.tests.test_replan import planned

REST_S = 20.0
STEPS = 100
HOUR_S = 3600.0
WORTH = 1.0
"""Layers that norm and output matrix are worth, as the nodes have measured."""


def plan_with(*ends: int, moved: CutMove | None = None, **spec: Any) -> PipelinePlan:
    """A pipeline of twelve layers whose stages end there."""
    plan = planned([lease(name) for name in "abcdef"[: len(ends)]], stages=len(ends), **spec)
    starts = (0, *ends)
    stages = tuple(
        stage.model_copy(update={"first_layer": starts[number], "end_layer": ends[number]})
        for number, stage in enumerate(plan.stages)
    )
    return plan.model_copy(update={"stages": stages, "moved": moved})


def at_work(
    plan: PipelinePlan,
    *layer_ms: float,
    rows: int = 1,
    streams: int = 8,
    spread: float = 0.1,
    node: Any = None,
    live_tokens: int = 0,
    prompt_ms: float | None = None,
) -> list[NodeLease]:
    """The stages' leases, at so many milliseconds a layer; `node` are options of theirs. Texts in work have
    `live_tokens`, of prompts a layer takes `prompt_ms` a token."""
    leases = []
    for number, stage in enumerate(plan.stages):
        layers = stage.end_layer - stage.first_layer + (WORTH if number == len(plan.stages) - 1 else 0)
        step_ms = layers * layer_ms[number]
        held = StageHeld(
            model=MODEL,
            epoch=plan.epoch,
            stage=number,
            first_layer=stage.first_layer,
            end_layer=stage.end_layer,
            ready=True,
            times=(StepTimes(rows=rows, steps=STEPS, median_ms=step_ms, spread=spread),),
            prompt_token_ms=None if prompt_ms is None else prompt_ms * (stage.end_layer - stage.first_layer),
            live_tokens=live_tokens if number == 0 else 0,
        )
        served = ServedModel(name=MODEL, backend="pipeline", slots=8, busy=streams)
        models = (served,) if number == 0 else ()
        model = shardable(layer_ms=1.0, last_ms=WORTH)
        leases.append(lease(stage.instance, model, held=held, models=models, **(node or {})))
    return leases


def said(plan: PipelinePlan, *layer_ms: float, **options: Any) -> Window:
    """What the policy makes of these speeds."""
    window = weighed(plan, at_work(plan, *layer_ms, **options), [plan])
    assert window is not None
    return window


def better(plan: PipelinePlan, *layer_ms: float, **options: Any) -> tuple[int, ...] | None:
    window = said(plan, *layer_ms, **options)
    return None if window.better is None else window.better.ends


# --- where the cut ought to be ----------------------------------------------------------


def test_layers_go_to_where_they_are_evaluated_faster() -> None:
    window = said(plan_with(1, LAYERS), 1.0, 1.0)
    assert window.better is not None and window.better.ends in {(6, LAYERS), (7, LAYERS)}
    assert (window.now.slowest_ms, window.better.slowest_ms) == pytest.approx((12.1, 7.1))
    assert window.gain == pytest.approx(12.1 / 7.1 - 1)
    assert better(plan_with(6, LAYERS), 1.0, 3.0) == (10, LAYERS)
    assert better(plan_with(4, 8, LAYERS), 1.0, 1.0, 8.0) in {(5, 11, LAYERS), (6, 11, LAYERS)}


def test_less_than_a_tenth_is_not_worth_a_move() -> None:
    # Given six and six layers, of which the last take 7.1 and could be five: 6.5 of 7.1 ms is nothing
    assert better(plan_with(6, LAYERS), 1.08, 1.0) is None
    assert better(plan_with(6, LAYERS), 1.0, 1.0) is None
    # And a fifth is
    assert better(plan_with(4, LAYERS), 1.0, 1.0) is not None


def test_a_stage_keeps_a_layer_however_slow_it_is() -> None:
    assert better(plan_with(6, LAYERS), 50.0, 1.0) == (1, LAYERS)
    assert better(plan_with(6, LAYERS), 1.0, 50.0) == (LAYERS - 1, LAYERS)
    assert better(plan_with(1, LAYERS), 50.0, 1.0) is None


def test_nobody_gets_more_layers_than_it_has_memory_for() -> None:
    room = {"memory_bytes": stage_memory(8, first=True, last=True)}
    plan = plan_with(6, LAYERS)
    assert better(plan, 1.0, 9.0) == (LAYERS - 1, LAYERS)
    assert better(plan, 1.0, 9.0, node=room) == (8, LAYERS)


def test_stages_that_share_a_host_are_cut_by_what_they_measure_side_by_side() -> None:
    """Each pinned to a core of its own, they say that their host has one."""
    assert better(plan_with(1, LAYERS), 1.0, 1.0, node={"host": "here", "cores": 1}) is not None


def test_a_single_stream_gains_nothing_from_equal_shares() -> None:
    """Its token passes through all layers, wherever they are; slow ones cost it time."""
    plan = plan_with(1, LAYERS)
    assert better(plan, 1.0, 1.0, streams=8) is not None
    assert better(plan, 1.0, 1.0, streams=1) is None
    assert better(plan, 1.0, 2.0, streams=1) is not None
    # And eight streams that travel as one micro-batch are as one
    assert better(plan, 1.0, 1.0, streams=8, rows=8) is None


def test_times_that_scatter_say_nothing() -> None:
    plan = plan_with(1, LAYERS)
    root = STEPS**0.5
    assert (
        weighed(plan, at_work(plan, 1.0, 1.0, spread=1.1 * MOST_ERROR * root / MEDIAN_ERROR), [plan]) is None
    )
    assert weighed(plan, at_work(plan, 1.0, 1.0, streams=0), [plan]) is None
    assert weighed(plan_with(LAYERS), at_work(plan_with(LAYERS), 1.0), [plan]) is None


def test_times_that_scatter_a_little_are_believed_where_much_is_at_stake() -> None:
    """A sixth more tokens per second are nothing where the medians may be wrong by a tenth."""
    spread = 0.1 * STEPS**0.5 / MEDIAN_ERROR
    some, much = plan_with(5, LAYERS), plan_with(1, LAYERS)
    assert said(some, 1.0, 1.0).gain == pytest.approx(8.1 / 7.1 - 1)
    assert better(some, 1.0, 1.0) is not None and better(some, 1.0, 1.0, spread=spread) is None
    assert better(much, 1.0, 1.0, spread=spread) is not None


def test_unlike_steps_are_believed_only_where_much_is_at_stake() -> None:
    def unlike(plan: PipelinePlan) -> Window | None:
        leases = at_work(plan, 1.0, 1.0)
        stage = leases[1].stage
        assert stage is not None and stage.held is not None
        times = (StepTimes(rows=2, steps=STEPS, median_ms=2 * stage.held.times[0].median_ms, spread=0.1),)
        other = stage.model_copy(update={"held": stage.held.model_copy(update={"times": times})})
        return weighed(plan, [leases[0], leases[1].model_copy(update={"stage": other})], [plan])

    little, much = unlike(plan_with(4, LAYERS)), unlike(plan_with(1, LAYERS))
    assert little is not None and little.better is None and little.gain > 0.1
    assert much is not None and much.better is not None and much.rows is None


# --- what a move costs ------------------------------------------------------------------


def test_a_move_costs_the_reading_of_all_texts_in_work_and_spares_time_for_five_minutes() -> None:
    plan = plan_with(1, LAYERS)
    window = said(plan, 1.0, 1.0, live_tokens=2_000, prompt_ms=0.5)
    assert window.stakes is not None and window.better is not None
    # The stage with most layers of the new cut sets the pace of reading
    most = max(end - first for first, end in pairwise((0, *window.better.ends)))
    assert window.stakes.live_tokens == 2_000
    assert window.stakes.lost_s == pytest.approx((INTERRUPTION_MS + 2_000 * 0.5 * most) / 1e3)
    assert window.stakes.gained_s == pytest.approx(HORIZON_S * (1 - 7.1 / 12.1))


def test_texts_that_take_longer_to_read_again_than_a_better_cut_spares_keep_the_cut() -> None:
    plan, long = plan_with(4, LAYERS), 40_000
    assert better(plan, 1.0, 1.0, live_tokens=1_000, prompt_ms=0.5) is not None
    assert better(plan, 1.0, 1.0, live_tokens=long, prompt_ms=0.5) is None
    window = said(plan, 1.0, 1.0, live_tokens=long, prompt_ms=0.5)
    assert window.gain > 0.1 and window.stakes is not None and not window.stakes.pay
    # As many are worth a move where more is at stake
    assert better(plan_with(1, LAYERS), 1.0, 4.0, live_tokens=long, prompt_ms=0.2) is not None
    # And those of a stage that has not told what prompts take cost the interruption alone
    assert better(plan, 1.0, 1.0, live_tokens=long) is not None


def test_what_was_weighed_is_told_with_the_move() -> None:
    plan, trend = plan_with(1, LAYERS), Trend()
    window = said(plan, 1.0, 1.0, live_tokens=2_000, prompt_ms=0.5)
    move = next_move(plan, window, trend, 0.0, REST_S)
    assert move is not None and window.stakes is not None
    assert (move.live_tokens, move.lost_s) == (2_000, window.stakes.lost_s)
    assert move.gained_s == window.stakes.gained_s > window.stakes.lost_s


# --- when it is moved -------------------------------------------------------------------


def moved(plan: PipelinePlan, *layer_ms: float, trend: Trend | None = None, now_s: float) -> CutMove | None:
    """The move after as many windows as are needed."""
    trend = trend or Trend()
    window = said(plan, *layer_ms)
    found = [trend.take(plan, window) for _ in range(AGREEING)]
    last = found[-1]
    return None if last is None else next_move(plan, last, trend, now_s, REST_S)


def after(plan: PipelinePlan, move: CutMove) -> PipelinePlan:
    """The plan after a move."""
    return plan_with(*move.ends, moved=move)


def test_a_gain_has_to_last() -> None:
    plan, trend = plan_with(1, LAYERS), Trend()
    good, bad = said(plan, 1.0, 1.0), said(plan, 50.0, 1.0)
    # When a window contradicts, counting begins anew; one that says nothing does not matter
    for window in (good, good, bad, good, None, good, None):
        assert trend.take(plan, window) is None
    assert trend.take(plan, good) is good


def test_windows_that_want_opposite_things_do_not_agree() -> None:
    plan, trend = plan_with(6, LAYERS), Trend()
    left, right = said(plan, 3.0, 1.0), said(plan, 1.0, 3.0)
    for window in (left, right) * AGREEING:
        assert trend.take(plan, window) is None


def test_a_host_that_becomes_busy_loses_layers_and_gets_them_back() -> None:
    plan = plan_with(6, LAYERS)
    # When the last stage's host has something else to do
    away = moved(plan, 1.0, 2.0, now_s=0.0)
    assert away is not None and away.ends[0] > 6 and away.rest_s == REST_S
    # Then it loses layers; and when it is idle again, it gets them back, but not at once
    lighter = after(plan, away)
    assert moved(lighter, 1.0, 2.0, now_s=REST_S) is None
    assert moved(lighter, 1.0, 1.0, now_s=REST_S - 1) is None
    back = moved(lighter, 1.0, 1.0, now_s=REST_S + 1)
    assert back is not None and back.ends[0] in {6, 7}
    assert (back.moves, back.rest_s) == (2, 2 * REST_S)


def test_a_host_that_is_busy_now_and_then_makes_layers_move_ever_more_rarely() -> None:
    """Half a minute busy, half a minute idle, for two hours: in the end there and back once in each of the
    longest rests."""
    plan, at_s = plan_with(6, LAYERS), []
    for now_s in range(0, 2 * 3600, 30):
        move = moved(plan, 1.0, 2.0 if now_s % 60 < 30 else 1.0, now_s=float(now_s))
        if move is not None:
            at_s.append(now_s)
            plan = after(plan, move)
    assert at_s[1] - at_s[0] <= 2 * REST_S
    late = [moment for moment in at_s if moment >= 3600]
    assert len(late) <= 2 * (3600 / MOST_REST_S + 1)


def test_a_calm_time_makes_the_rest_short_again() -> None:
    plan = plan_with(6, LAYERS)
    away = moved(plan, 1.0, 2.0, now_s=0.0)
    assert away is not None
    back = moved(after(plan, away), 1.0, 1.0, now_s=CALM_RESTS * REST_S)
    assert back is not None and back.rest_s == REST_S


def test_a_second_move_the_same_way_waits_no_longer_than_the_first() -> None:
    first = moved(plan_with(1, LAYERS), 1.0, 1.0, now_s=0.0)
    assert first is not None
    short = first.model_copy(update={"ends": (4, LAYERS)})
    second = moved(after(plan_with(1, LAYERS), short), 1.0, 1.0, now_s=REST_S)
    assert second is not None and second.rest_s == REST_S


def test_a_move_in_vain_doubles_the_rest_and_its_way_back_is_open() -> None:
    """A host that is only slow while its stage has much to do: with few layers it seems fast."""
    # Given a stage that got layers back after a long rest
    light = plan_with(9, LAYERS, moved=None)
    given = moved(light, 1.0, 1.0, now_s=0.0)
    assert given is not None
    given = given.model_copy(update={"rest_s": 300.0})
    heavy = after(light, given)
    # When it turns out to be as slow as before
    trend = Trend()
    away = moved(heavy, 1.0, 3.0, trend=trend, now_s=REST_S + 1)
    # Then that is seen, the layers go at once, and come back after twice the time
    assert trend.brought is False
    assert away is not None and away.rest_s == 600.0
    assert moved(after(heavy, away), 1.0, 1.0, now_s=away.at_s + 599) is None


def test_a_move_that_brought_what_it_promised_is_known_as_one() -> None:
    plan = plan_with(1, LAYERS)
    move = moved(plan, 1.0, 1.0, now_s=0.0)
    assert move is not None
    trend, balanced = Trend(), after(plan, move)
    for _ in range(2):
        trend.take(balanced, said(balanced, 1.0, 1.0))
    assert trend.brought is True
    # And steps of other sizes say nothing of it
    other = Trend()
    for _ in range(2):
        other.take(balanced, said(balanced, 1.0, 1.0, rows=2))
    assert other.brought is None


def test_what_was_moved_is_not_moved_back_by_what_was_measured_at_the_start() -> None:
    plan = plan_with(9, LAYERS)
    leases = at_work(plan, 1.0, 1.0)
    assert improved(plan, leases, [plan]) is not None
    move = CutMove(at_s=HOUR_S, ends_before=(6, LAYERS), ends=(9, LAYERS), slowest_ms=9, predicted_ms=6,
                   gain=0.5, rest_s=REST_S)  # fmt: skip
    assert improved(plan.model_copy(update={"moved": move}), leases, [plan]) is None


def test_nodes_that_somebody_named_keep_their_places_and_exchange_layers() -> None:
    plan = plan_with(1, LAYERS).model_copy(update={"wanted": Shard(model=MODEL, assign=("a", "b"))})
    assert better(plan, 1.0, 1.0) is not None
