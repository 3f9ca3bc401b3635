"""Sizes of effect: by hand, against a referee, and the same size the other way round."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from analysis.statistics.effects import cliffs_delta, matched_pairs_rank_biserial
from analysis.statistics.significance import NO_DIFFERENCE, wilcoxon
from schemas.errors import InvalidRequest

scores = st.sampled_from([0, 0.2, 0.4, 0.6, 0.8, 1])


def test_cliff_s_delta_counts_who_is_ahead_of_whom() -> None:
    found = cliffs_delta([1, 2, 3], [2, 2, 0])
    assert found.value == pytest.approx((5 - 2) / 9)
    assert found.n == 3


@given(st.lists(scores, min_size=1, max_size=30), st.lists(scores, min_size=1, max_size=30))
def test_cliff_s_delta_is_mann_whitney_s_u_in_other_units(one: list[float], other: list[float]) -> None:
    u = stats.mannwhitneyu(one, other).statistic if {*one} != {*other} or len({*one}) > 1 else None
    expected = 0.0 if u is None else 2 * float(u) / (len(one) * len(other)) - 1
    assert cliffs_delta(one, other).value == pytest.approx(expected)


def test_the_rank_biserial_is_the_share_of_ranks_for_one_less_that_for_the_other() -> None:
    found = matched_pairs_rank_biserial([3, 0, 5, 1], [0, 1, 0, 3])
    assert found.value == pytest.approx((3 + 4 - 1 - 2) / 10)


def test_zeros_take_ranks_and_are_on_no_side() -> None:
    found = matched_pairs_rank_biserial([0, 0, 1, 0], [0, 0, 0, 2])
    assert found.value == pytest.approx((3 - 4) / 7)


@given(st.lists(st.tuples(scores, scores), min_size=1, max_size=30))
def test_an_effect_is_whole_or_none_where_wilcoxon_s_sum_is(pairs: list[tuple[float, float]]) -> None:
    one, other = zip(*pairs, strict=True)
    effect, test = matched_pairs_rank_biserial(one, other), wilcoxon(one, other)
    assert (effect.note == NO_DIFFERENCE) == (test.note == NO_DIFFERENCE)
    assert (effect.value in (-1.0, 1.0)) == (test.statistic == 0 and not test.note)


@pytest.mark.parametrize("measure", [cliffs_delta, matched_pairs_rank_biserial])
@given(pairs=st.lists(st.tuples(scores, scores), min_size=1, max_size=30))
def test_the_other_way_round_it_is_as_large_and_of_the_other_sign(
    measure: Any, pairs: list[tuple[float, float]]
) -> None:
    one, other = zip(*pairs, strict=True)
    here, there = measure(one, other).value, measure(other, one).value

    assert -1 <= here <= 1
    assert here == pytest.approx(-there)


@pytest.mark.parametrize("measure", [cliffs_delta, matched_pairs_rank_biserial])
@pytest.mark.parametrize(("one", "other", "field"), [([], [1], "one"), ([1], [], "other")])
def test_no_scores_are_refused(measure: Any, one: Any, other: Any, field: str) -> None:
    with pytest.raises(InvalidRequest) as refused:
        measure(one, other)
    assert refused.value.field == field


def test_an_effect_of_pairs_needs_pairs() -> None:
    with pytest.raises(InvalidRequest):
        matched_pairs_rank_biserial([1, 2], [1])
