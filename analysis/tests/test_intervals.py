"""Intervals: worked values, independent referees, and that a proportion never leaves [0, 1]."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from statsmodels.stats.proportion import proportion_confint
from statsmodels.stats.sandwich_covariance import cov_cluster

from analysis.statistics.intervals import ONE_QUESTION, clustered_mean, wilson
from analysis.statistics.questions import fold
from analysis.statistics.results import Estimate
from schemas.errors import InvalidRequest


def interval_of(estimate: Estimate) -> tuple[float, float]:
    assert estimate.interval is not None
    return estimate.interval


# Wilson


def test_eight_of_ten_has_wilson_s_interval() -> None:
    estimate = wilson(8, 10)

    assert estimate.value == 0.8
    assert estimate.interval == pytest.approx((0.490, 0.943), abs=5e-4)
    assert (estimate.n, estimate.method, estimate.confidence) == (10, "Wilson", 0.95)


@given(st.integers(1, 2000), st.data(), st.sampled_from([0.8, 0.9, 0.95, 0.99]))
def test_wilson_is_what_scipy_and_statsmodels_say(n: int, data: st.DataObject, confidence: float) -> None:
    right = data.draw(st.integers(0, n))

    interval = interval_of(wilson(right, n, confidence))

    scipy_says = stats.binomtest(right, n).proportion_ci(confidence, method="wilson")
    assert interval == pytest.approx((scipy_says.low, scipy_says.high), abs=1e-9)
    assert interval == pytest.approx(
        proportion_confint(right, n, alpha=1 - confidence, method="wilson"), abs=1e-9
    )


@given(st.integers(1, 500), st.floats(0, 1))
def test_wilson_holds_the_proportion_and_stays_between_nothing_and_all(n: int, share: float) -> None:
    estimate = wilson(share * n, n)
    low, high = interval_of(estimate)
    assert 0 <= low <= estimate.value <= high <= 1


def test_all_right_is_not_certainty() -> None:
    assert interval_of(wilson(10, 10)) == pytest.approx((0.722, 1.0), abs=5e-4)


@pytest.mark.parametrize(("right", "n", "field"), [(0, 0, "n"), (3, 2, "right"), (-1, 2, "right")])
def test_wilson_refuses_counts_that_cannot_be(right: int, n: int, field: str) -> None:
    with pytest.raises(InvalidRequest) as refused:
        wilson(right, n)
    assert refused.value.field == field


@pytest.mark.parametrize("confidence", [0.0, 1.0, 95.0, math.nan])
def test_a_confidence_that_is_none_is_refused(confidence: float) -> None:
    with pytest.raises(InvalidRequest) as refused:
        wilson(8, 10, confidence)
    assert refused.value.field == "confidence"


# Clustered


def test_two_questions_of_three_repetitions_have_the_clustered_error() -> None:
    estimate = clustered_mean(fold([*[("a", 1.0)] * 3, ("b", 0.0), ("b", 0.0), ("b", 1.0)]))

    assert estimate.value == pytest.approx(4 / 6)
    assert estimate.standard_error == pytest.approx(0.3333, abs=5e-5)
    assert estimate.n == 2
    assert estimate.interval == (0.0, 1.0), "two questions say next to nothing"


@settings(max_examples=50, deadline=None)
@given(st.lists(st.lists(st.floats(0, 1), min_size=1, max_size=5), min_size=2, max_size=12))
def test_the_clustered_error_is_that_of_statsmodels(clusters: list[list[float]]) -> None:
    samples = [(str(c), score) for c, scores in enumerate(clusters) for score in scores]

    error = clustered_mean(fold(samples)).standard_error

    scores = np.asarray([score for _, score in samples])
    mean_as_regression = ((scores - scores.mean())[:, None], np.asarray([[1 / scores.size]]))
    variance = cov_cluster(mean_as_regression, np.asarray([int(c) for c, _ in samples]))
    assert error == pytest.approx(math.sqrt(float(variance[0, 0])), abs=1e-9)


def test_repeating_an_answer_makes_nothing_more_certain() -> None:
    scores = [1, 0, 1, 1, 0, 1, 0, 1]
    once = clustered_mean(fold((str(q), s) for q, s in enumerate(scores)))
    often = clustered_mean(fold((str(q), s) for q, s in enumerate(scores) for _ in range(20)))

    assert often.standard_error == pytest.approx(once.standard_error)
    assert once.standard_error == pytest.approx(np.std(scores, ddof=1) / math.sqrt(len(scores)))
    assert often.interval == pytest.approx(once.interval)


def test_seconds_have_no_upper_bound() -> None:
    questions = fold([("a", 2.0), ("b", 9.0), ("c", 4.0)])
    low, high = interval_of(clustered_mean(questions, bounds=None))
    assert low < 0 < 9 < high


def test_the_clustered_interval_of_one_question_is_not_known() -> None:
    estimate = clustered_mean(fold([("a", 1.0), ("a", 0.0)]))
    assert (estimate.value, estimate.interval, estimate.standard_error) == (0.5, None, None)
    assert estimate.note == ONE_QUESTION


@given(st.lists(st.lists(st.floats(0, 1), min_size=1, max_size=5), min_size=2, max_size=12))
def test_the_clustered_interval_holds_the_mean_and_stays_between_nothing_and_all(
    clusters: list[list[float]],
) -> None:
    estimate = clustered_mean(fold((str(c), score) for c, scores in enumerate(clusters) for score in scores))
    low, high = interval_of(estimate)
    assert 0 <= low <= estimate.value <= high <= 1
