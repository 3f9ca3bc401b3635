"""Bootstrap and permutation of whole tables: scipy is the referee, column by column."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy import stats

from analysis.statistics.resampling import bca_columns, sign_flip_columns
from analysis.statistics.significance import mcnemar
from schemas.errors import InvalidRequest

DICE = np.random.default_rng(3)


@pytest.fixture(scope="module")
def table() -> NDArray[np.float64]:
    """80 questions: right or wrong, skewed, differences, and a column that never changes."""
    return np.column_stack(
        [
            DICE.integers(0, 2, 80),
            DICE.exponential(2.0, 80),
            DICE.integers(-1, 2, 80),
            np.full(80, 0.25),
        ]
    ).astype(np.float64)


def test_the_intervals_are_those_of_scipys_bca_but_for_the_draw(table: NDArray[np.float64]) -> None:
    bounds = bca_columns(table, seed=1)
    for column, (low, high) in zip(table.T[:3], bounds[:3], strict=True):
        found = stats.bootstrap((column,), np.mean, n_resamples=9999, method="BCa", random_state=2)
        width = found.confidence_interval.high - found.confidence_interval.low
        assert low == pytest.approx(found.confidence_interval.low, abs=0.05 * width)
        assert high == pytest.approx(found.confidence_interval.high, abs=0.05 * width)


def test_a_column_that_never_changes_has_its_mean_on_both_ends(table: NDArray[np.float64]) -> None:
    assert bca_columns(table, seed=1)[3].tolist() == [0.25, 0.25]
    assert bca_columns([[0.5]], seed=1).tolist() == [[0.5, 0.5]]


def test_the_same_seed_gives_the_same_bounds_whatever_stands_beside(table: NDArray[np.float64]) -> None:
    both = bca_columns(table, seed=5)
    alone = bca_columns(table[:, :1], seed=5)
    assert both[0] == pytest.approx(alone[0], abs=1e-12)


def test_the_intervals_cover_the_truth_about_as_often_as_they_say() -> None:
    tables = np.random.default_rng(5).binomial(1, 0.7, size=(60, 300)).astype(float)
    low, high = np.vstack(
        [bca_columns(column[:, None], seed=seed, resamples=499) for seed, column in enumerate(tables.T)]
    ).T
    covered = ((low <= 0.7) & (high >= 0.7)).mean()
    assert 0.90 <= covered <= 0.98


@settings(max_examples=40, deadline=None)
@given(st.lists(st.sampled_from([0.0, 0.2, 0.5, 1.0]), min_size=2, max_size=25), st.integers(0, 2**32))
def test_an_interval_of_scores_stays_between_nothing_and_all(values: list[float], seed: int) -> None:
    ((low, high),) = bca_columns([[value] for value in values], seed=seed, resamples=199)
    assert 0 <= low <= high <= 1


def test_too_few_resamples_are_refused(table: NDArray[np.float64]) -> None:
    with pytest.raises(InvalidRequest) as refused:
        bca_columns(table, seed=0, resamples=0)
    assert refused.value.field == "resamples"


def test_few_questions_are_flipped_in_every_way() -> None:
    differences = np.array([1.0, 0.5, 0.0, 1.0, -0.5, 0.25])
    as_uneven = [
        abs(float(np.dot(signs, differences))) >= differences.sum() - 1e-9
        for signs in product((-1, 1), repeat=6)
    ]
    (p,) = sign_flip_columns(differences[:, None], seed=0)
    assert p == sum(as_uneven) / 64


def test_many_questions_agree_with_scipys_permutation_test() -> None:
    differences = DICE.normal(0.25, 1.0, 60)
    (p,) = sign_flip_columns(differences[:, None], seed=4)
    found = stats.permutation_test(
        (differences, np.zeros(60)),
        lambda one, other, axis: np.mean(one - other, axis=axis),
        permutation_type="samples",
        vectorized=True,
        n_resamples=9999,
        random_state=5,
    )
    assert p == pytest.approx(found.pvalue, abs=0.01)


def test_on_right_and_wrong_it_is_mcnemar_but_for_the_draw() -> None:
    one = np.array([1] * 12 + [0] * 4 + [1] * 30)
    other = np.array([0] * 12 + [1] * 4 + [1] * 30)
    (p,) = sign_flip_columns((one - other)[:, None].astype(float), seed=6)
    assert mcnemar(one, other).p == pytest.approx(0.0768, abs=5e-5)
    assert p == pytest.approx(0.0768, abs=0.008)


def test_no_difference_has_a_p_of_one() -> None:
    assert sign_flip_columns(np.zeros((5, 1)), seed=0).tolist() == [1.0]
    assert sign_flip_columns(np.zeros((50, 1)), seed=0).tolist() == [1.0]


@pytest.mark.parametrize("table", [[], [1.0, 2.0], [[np.nan]], [[]]])
def test_what_is_no_table_is_an_error(table: list[float]) -> None:
    with pytest.raises(InvalidRequest, match="table"):
        bca_columns(table, seed=0)


def test_questions_of_one_cluster_are_flipped_together() -> None:
    """Against every way to give signs to three clusters, written out."""
    differences = np.array([[1.0], [0.5], [0.0], [1.0], [-0.5]])
    clusters = ["b", "a", "a", "b", "c"]
    sums = [2.0, 0.5, -0.5]
    actual = abs(sum(sums))
    ways = [abs(a * sums[0] + b * sums[1] + c * sums[2]) for a in (1, -1) for b in (1, -1) for c in (1, -1)]
    expected = sum(way >= actual for way in ways) / len(ways)
    assert sign_flip_columns(differences, seed=0, clusters=clusters).tolist() == [expected]


def test_each_question_a_cluster_of_its_own_changes_nothing() -> None:
    differences = np.random.default_rng(4).choice([-1.0, 0.0, 0.5], size=(40, 3))
    alone = sign_flip_columns(differences, seed=9, permutations=999)
    assert (sign_flip_columns(differences, seed=9, permutations=999, clusters=range(40)) == alone).all()


def test_clusters_that_do_not_fit_are_refused() -> None:
    with pytest.raises(InvalidRequest) as refused:
        sign_flip_columns([[1.0], [0.0]], seed=0, clusters=["a"])
    assert refused.value.field == "clusters"
