"""Rows in a step, and company on a host, decide whether a split pays: by tables of what was measured."""

from __future__ import annotations

import pytest

from schemas.pipelines.plan import Shard, StepCost
from services.router.placement.candidates import candidates_of
from services.router.placement.plan_builder import predicted
from services.router.placement.shard import decided as decided_by
from services.router.placement.tests.offering import (
    MODEL,
    ONE_NODE,
    decided,
    layers_of,
    lease,
    refusal,
    shardable,
    speeds,
    two_cores,
)

APART = ("here", "there")
TWO_NODES = {2: 49, 4: 49, 8: 62, 16: 91, 32: 86}
"""What a pipeline of these two cores, 12 layers each, had where they share a memory."""


@pytest.mark.parametrize(("streams", "rate"), ONE_NODE.items())
def test_one_node_is_predicted_what_it_has_in_the_best_steps(streams: int, rate: float) -> None:
    # Two rows cost three single ones, so two streams take turns; 32 rows are on the line of 8 and 16
    alone = decided(two_cores(slower=1.0)[:1], slots=32).split
    best = max(measured for rows, measured in ONE_NODE.items() if rows <= streams)
    assert alone.tokens_per_s(streams) == pytest.approx(best, rel=0.01)
    assert best >= rate


@pytest.mark.parametrize(("streams", "rate"), TWO_NODES.items())
def test_a_split_is_predicted_what_was_measured_of_it_where_cores_slow_each_other_down(
    streams: int, rate: float
) -> None:
    split = decided(two_cores(slower=1.8), stages=2, slots=32, force=True).split
    assert split.tokens_per_s(streams) == pytest.approx(rate, rel=0.3)
    # A single stream has but one stage at work, and two hops more than one node
    assert split.tokens_per_s(1) == pytest.approx(1e3 / (1e3 / ONE_NODE[1] + 2 * 0.4))


@pytest.mark.parametrize("slots", [1, 4, 8, 16, 32, 64])
def test_cores_that_slow_each_other_down_are_not_given_a_part_each(slots: int) -> None:
    decision = decided(two_cores(slower=1.8), slots=slots)
    assert len(layers_of(decision)) == 1
    assert decision.passed_over is not None and len(decision.passed_over.placements) == 2


@pytest.mark.parametrize("slots", [2, 4, 8, 16, 32, 64])
def test_nodes_with_a_memory_each_are_and_have_more_from_two_streams_on(slots: int) -> None:
    decision = decided(two_cores(slower=1.8, hosts=APART), slots=slots)
    assert set(layers_of(decision).values()) == {12}
    assert decision.whole is not None
    for streams in (2, 4, 8, 16, 32, 64):
        assert decision.split.tokens_per_s(streams) >= 1.2 * decision.whole.tokens_per_s(streams)
    assert len(layers_of(decided(two_cores(slower=1.8, hosts=APART), slots=1))) == 1


def test_where_rows_cost_nothing_one_step_of_all_is_as_good_as_a_split() -> None:
    # Given nodes whose steps take as long with sixteen sequences as with one, as on a GPU
    flat = tuple(StepCost(rows=rows, alone=1.0, beside=1.0) for rows in (1, 16))
    nodes = [lease(name, shardable(step_costs=flat)) for name in "ab"]
    assert len(layers_of(decided(nodes, slots=16))) == 1
    assert "would only slow it down" in refusal(nodes, stages=2, slots=16).message
    # Where each row costs what a step of its own does, as before rows were measured, a split gains
    assert len(layers_of(decided([lease(name) for name in "ab"], slots=16))) == 2


def test_a_split_that_gains_at_all_slots_and_loses_at_fewer_streams_is_not_made() -> None:
    # Given four slow nodes beside a fast one: with eight streams three of them help, with two they do not
    nodes = speeds(0.5, 3.0, 3.0, 3.0, 3.0, hop_ms=0.3)
    four = decided(nodes, stages=4, slots=8, force=True)
    assert four.whole is not None
    gains = [four.split.tokens_per_s(n) / four.whole.tokens_per_s(n) for n in (2, 8)]
    assert gains[0] < 1 and gains[1] > 1.1
    # Then there are fewer, with which no number of streams has less than the one node
    fewer = decided(nodes, slots=8)
    assert fewer.whole is not None and len(layers_of(fewer)) == 2
    assert all(fewer.split.tokens_per_s(n) > fewer.whole.tokens_per_s(n) for n in (2, 4, 8))


def test_what_was_weighed_is_told_side_by_side() -> None:
    def told(**spec: object) -> str:
        pool, decision = decided_by(
            Shard(model=MODEL, slots=8, **spec), candidates_of(MODEL, two_cores(slower=1.8)), ()
        )
        return predicted(decision, measured=pool.measured)

    weighed = "tokens/s at 1 / 2 / 4 / 8 streams: 2 stages 43 / 46 / 46 / 53, a alone 44 / 44 / 50 / 78"
    assert told() == (
        "1 stage: 22.73 ms a token, up to 78 tokens/s with overlap, predicted; "
        f"not split, as that gains too little: {weighed}"
    )
    assert told(stages=2, force=True).endswith(f"this only slows it down; {weighed}")
    assert told(stages=1).endswith("predicted; a alone takes 22.73 ms")
