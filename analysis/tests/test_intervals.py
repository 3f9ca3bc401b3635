"""Intervals: worked values, independent referees, and that a proportion never leaves [0, 1]."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from statsmodels.stats.proportion import proportion_confint
from statsmodels.stats.sandwich_covariance import cov_cluster

from analysis.statistics.intervals import ONE_QUESTION, bca_difference, bca_mean, clustered_mean, wilson
from analysis.statistics.questions import fold
from analysis.statistics.results import Estimate
from schemas.errors import InvalidRequest

SEED = 7


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


# BCa


def bca_by_hand(values: np.ndarray[Any, np.dtype[np.float64]], seed: int) -> tuple[float, float]:
    """Efron's formula written out, with the acceleration from the third moment of the data."""
    n, mean = values.size, values.mean()
    resampled = values[np.random.default_rng(seed).integers(0, n, (40_000, n))].mean(axis=1)
    z0 = stats.norm.ppf((np.mean(resampled < mean) + np.mean(resampled <= mean)) / 2)
    off = values - mean
    acceleration = (off**3).sum() / (6 * (off**2).sum() ** 1.5)

    def level(z: float) -> float:
        return float(stats.norm.cdf(z0 + (z0 + z) / (1 - acceleration * (z0 + z))))

    low, high = np.quantile(resampled, [level(-1.959964), level(1.959964)])
    return float(low), float(high)


def test_the_bootstrap_interval_is_efron_s_formula() -> None:
    values = np.random.default_rng(1).exponential(size=40)

    interval = interval_of(bca_mean(values, seed=SEED))

    assert interval == pytest.approx(bca_by_hand(values, seed=2), rel=0.02)
    assert interval[1] - values.mean() > values.mean() - interval[0], "it leans the way the data lean"


def test_a_bootstrap_with_the_same_seed_is_the_same() -> None:
    values = [0, 1, 1, 0.5, 1, 0, 0, 1]
    assert bca_mean(values, seed=SEED) == bca_mean(values, seed=SEED)


def test_the_bootstrap_of_many_questions_does_not_depend_on_the_size_of_a_batch() -> None:
    values = np.random.default_rng(3).normal(5, 1, size=1500)

    low, high = interval_of(bca_mean(values, seed=SEED))

    half = 1.96 * values.std(ddof=1) / math.sqrt(values.size)
    assert (low, high) == pytest.approx((values.mean() - half, values.mean() + half), abs=0.005)


def test_the_bootstrap_covers_the_truth_about_as_often_as_it_says() -> None:
    draw = np.random.default_rng(5)
    intervals = [
        interval_of(bca_mean(draw.binomial(1, 0.7, size=60), seed=seed, resamples=499)) for seed in range(300)
    ]
    covered = np.mean([low <= 0.7 <= high for low, high in intervals])
    assert 0.90 <= covered <= 0.98


def test_a_difference_is_resampled_in_pairs() -> None:
    draw = np.random.default_rng(4)
    hard = draw.normal(0, 10, size=50)
    one, other = hard + 1, hard + draw.normal(0, 0.1, size=50)

    estimate = bca_difference(one, other, seed=SEED)

    low, high = interval_of(estimate)
    assert estimate.value == pytest.approx(1.0, abs=0.05)
    assert high - low < 0.1, "how hard a question is falls out of the difference"


def test_equal_values_leave_nothing_to_resample_and_the_note_says_so() -> None:
    estimate = bca_difference([0.3, 0.3, 0.3], [0.1, 0.1, 0.1], seed=SEED)

    assert estimate.interval == pytest.approx((0.2, 0.2))
    assert "same value" in estimate.note


def test_one_question_has_no_interval() -> None:
    estimate = bca_mean([1.0], seed=SEED)
    assert (estimate.value, estimate.interval, estimate.note) == (1.0, None, ONE_QUESTION)


@settings(max_examples=40, deadline=None)
@given(st.lists(st.sampled_from([0.0, 0.2, 0.5, 1.0]), min_size=2, max_size=25), st.integers(0, 2**32))
def test_the_bootstrap_interval_of_scores_stays_between_nothing_and_all(
    values: list[float], seed: int
) -> None:
    low, high = interval_of(bca_mean(values, seed=seed, resamples=199))
    assert 0 <= low <= high <= 1


@settings(max_examples=20, deadline=None)
@given(st.lists(st.tuples(st.floats(0, 1), st.floats(0, 1)), min_size=2, max_size=15))
def test_the_difference_the_other_way_round_has_the_other_sign(scores: list[tuple[float, float]]) -> None:
    one, other = zip(*scores, strict=True)
    here = bca_difference(one, other, seed=SEED, resamples=199)
    there = bca_difference(other, one, seed=SEED, resamples=199)
    assert here.value == pytest.approx(-there.value, abs=1e-12)


@pytest.mark.parametrize(
    ("one", "other", "field"),
    [
        ([], [], "one"),
        ([1, 0], [1], "other"),
        (["a"], [1], "one"),
        ([[1]], [1], "one"),
        ([1], [None], "other"),
    ],
)
def test_a_difference_of_what_is_no_pair_is_refused(one: Any, other: Any, field: str) -> None:
    with pytest.raises(InvalidRequest) as refused:
        bca_difference(one, other, seed=SEED)
    assert refused.value.field == field


def test_too_few_resamples_are_refused() -> None:
    with pytest.raises(InvalidRequest) as refused:
        bca_mean([0, 1], seed=SEED, resamples=0)
    assert refused.value.field == "resamples"


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
