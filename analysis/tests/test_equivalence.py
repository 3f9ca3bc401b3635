"""Two strategies are called as good as one another only where that was shown."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from analysis.statistics.equivalence import tost
from schemas.errors import InvalidRequest


@given(st.lists(st.sampled_from([-1.0, -0.5, 0.0, 0.5, 1.0]), min_size=3, max_size=60), st.floats(0.05, 0.5))
def test_it_is_two_one_sided_t_tests_of_scipy(values: list[float], margin: float) -> None:
    if len(set(values)) == 1:
        return
    below = stats.ttest_1samp(values, -margin, alternative="greater").pvalue
    above = stats.ttest_1samp(values, margin, alternative="less").pvalue
    floor = math.prod(1 - margin for _ in values)
    assert tost(values, margin).p == pytest.approx(max(below, above, floor))


def test_clusters_are_the_witnesses() -> None:
    """Against the sandwich written out question by question."""
    draw = np.random.default_rng(2)
    clusters = [n % 7 for n in range(70)]
    values = draw.choice([-1.0, 0.0, 1.0], p=[0.05, 0.9, 0.05], size=70)
    mean = values.mean()
    squares = sum(sum(values[i] - mean for i in range(70) if clusters[i] == c) ** 2 for c in range(7))
    error = math.sqrt(7 / 6 * squares) / 70
    expected = max(0.8**7, stats.t.sf((0.2 - abs(mean)) / error, 6))
    assert tost(values, 0.2, clusters).p == pytest.approx(expected)


@pytest.mark.parametrize(("n", "shown"), [(20, False), (58, False), (59, True)])
def test_never_having_differed_shows_equality_only_over_enough_questions(n: int, shown: bool) -> None:
    assert (tost([0.0] * n).p <= 0.05) is shown


def test_a_difference_beyond_the_margin_is_never_as_good() -> None:
    assert tost([0.1] * 500).p == 1.0
    assert tost([1.0, 0.0] * 100).p > 0.99


def test_it_errs_no_more_often_than_it_says_at_the_margin() -> None:
    draw = np.random.default_rng(3)
    tables = draw.choice([-1.0, 0.0, 1.0], p=[0.05, 0.85, 0.10], size=(1000, 300))
    assert np.mean([tost(row).p <= 0.05 for row in tables]) <= 0.065


def test_one_question_shows_nothing_and_a_margin_is_a_share() -> None:
    assert tost([0.0]).p == 1.0
    with pytest.raises(InvalidRequest) as refused:
        tost([0.0, 0.0], 0.0)
    assert refused.value.field == "margin"
