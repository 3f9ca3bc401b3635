"""Tests of a difference: worked values, independent referees, and data that say nothing."""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import product
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from statsmodels.stats.contingency_tables import mcnemar as statsmodels_mcnemar
from statsmodels.stats.multitest import multipletests

from analysis.statistics.results import Significance
from analysis.statistics.significance import (
    NO_DIFFERENCE,
    cochrans_q,
    holm,
    mcnemar,
    mcnemar_of_counts,
    paired_t,
    wilcoxon,
)
from schemas.errors import InvalidRequest

PairedTest = Callable[[Any, Any], Significance]
PAIRED_TESTS: tuple[PairedTest, ...] = (mcnemar, paired_t, wilcoxon)

right_or_wrong = st.lists(st.tuples(st.booleans(), st.booleans()), min_size=1, max_size=60)
mean_scores = st.lists(
    st.tuples(st.sampled_from([0, 0.2, 0.4, 0.6, 0.8, 1]), st.sampled_from([0, 0.2, 0.4, 0.6, 0.8, 1])),
    min_size=1,
    max_size=40,
)


# McNemar


def test_twelve_against_four_is_not_significant() -> None:
    found = mcnemar_of_counts(12, 4, n=100)

    assert found.p == pytest.approx(0.0768, abs=5e-5)
    assert (found.statistic, found.n, found.test) == (4.0, 100, "exact McNemar")


def test_mcnemar_looks_only_at_questions_that_just_one_has_right() -> None:
    one = [1] * 12 + [0] * 4 + [1] * 50 + [0] * 34
    other = [0] * 12 + [1] * 4 + [1] * 50 + [0] * 34
    assert mcnemar(one, other) == mcnemar_of_counts(12, 4, n=100)


@given(right_or_wrong)
def test_mcnemar_is_what_statsmodels_says(pairs: list[tuple[bool, bool]]) -> None:
    one, other = zip(*pairs, strict=True)
    table = [[sum(p == (a, b) for p in pairs) for b in (True, False)] for a in (True, False)]

    assert mcnemar(one, other).p == pytest.approx(float(statsmodels_mcnemar(table, exact=True).pvalue))


def test_mcnemar_wants_right_or_wrong() -> None:
    with pytest.raises(InvalidRequest, match="right \\(1\\) or wrong \\(0\\)") as refused:
        mcnemar([0.5, 1], [1, 0])
    assert refused.value.field == "one"


@pytest.mark.parametrize(("b", "c", "n", "field"), [(-1, 0, 5, "only_one"), (3, 3, 5, "n"), (0, 0, 0, "n")])
def test_mcnemar_refuses_counts_that_cannot_be(b: int, c: int, n: int, field: str) -> None:
    with pytest.raises(InvalidRequest) as refused:
        mcnemar_of_counts(b, c, n=n)
    assert refused.value.field == field


# Paired t and Wilcoxon


@given(mean_scores.filter(lambda pairs: len({round(a - b, 9) for a, b in pairs}) > 1))
def test_paired_t_is_what_scipy_says(pairs: list[tuple[float, float]]) -> None:
    one, other = zip(*pairs, strict=True)
    referee = stats.ttest_rel(one, other)

    found = paired_t(one, other)

    assert (found.statistic, found.p) == pytest.approx((float(referee.statistic), float(referee.pvalue)))


def test_differences_that_are_all_the_same_do_not_prove_everything() -> None:
    found = paired_t([0.3, 0.6, 0.9], [0.1, 0.4, 0.7])

    assert found.p == pytest.approx(2 / 2**3)
    assert found.statistic is None
    assert "sign-flip" in found.note


def test_five_differences_of_one_sign_have_the_exact_p_of_wilcoxon() -> None:
    found = wilcoxon([1, 2, 3, 4, 5], [0, 0, 0, 0, 0])
    assert found.p == pytest.approx(2 / 2**5)
    assert found.statistic == 0.0


def exact_wilcoxon(differences: list[float]) -> float:
    """Pratt's p by trying all signs."""
    ranks = [r for r, d in zip(stats.rankdata(np.abs(differences)), differences, strict=True) if d]
    seen = sum(r for r, d in zip(ranks, (d for d in differences if d), strict=True) if d > 0)
    off = abs(seen - sum(ranks) / 2)
    sums = [
        sum(r for r, up in zip(ranks, ups, strict=True) if up) for ups in product((0, 1), repeat=len(ranks))
    ]
    return float(np.mean([abs(s - sum(ranks) / 2) >= off - 1e-9 for s in sums]))


def test_wilcoxon_ranks_zeros_and_ties_as_pratt_did() -> None:
    differences = [0.0, 0.0, 1.0, 1.0, -1.0, 2.0, 3.0, -2.0, 4.0]
    assert wilcoxon(differences, [0.0] * 9).p == pytest.approx(exact_wilcoxon(differences))


@given(st.lists(st.integers(1, 10**6), min_size=1, max_size=50, unique=True), st.randoms())
def test_wilcoxon_without_ties_is_what_scipy_says(sizes: list[int], random: Any) -> None:
    differences = [size * random.choice([-1, 1]) for size in sizes]
    referee = stats.wilcoxon(differences, method="exact")

    found = wilcoxon(differences, [0] * len(sizes))

    assert found.statistic == pytest.approx(float(referee.statistic))
    assert found.p == pytest.approx(float(referee.pvalue))


def test_the_exact_and_the_approximate_p_of_wilcoxon_meet_where_one_takes_over() -> None:
    differences = np.random.default_rng(6).choice([-2.0, -1.0, 0.0, 1.0, 2.0, 3.0], size=50)
    referee = stats.wilcoxon(differences, zero_method="pratt")
    assert wilcoxon(differences, np.zeros(50)).p == pytest.approx(float(referee.pvalue), abs=0.01)


def test_wilcoxon_of_many_questions_is_near_the_test_by_sign_flips() -> None:
    draw = np.random.default_rng(2)
    differences = draw.choice([-1.0, -0.5, 0.0, 0.5, 1.0], size=120, p=[0.1, 0.15, 0.4, 0.15, 0.2])
    ranks = stats.rankdata(np.abs(differences)) * (differences != 0)
    flipped = (draw.choice([-1, 1], size=(20_000, 120)) * ranks).sum(axis=1)
    by_flips = np.mean(np.abs(flipped) >= abs((np.sign(differences) * ranks).sum()))

    assert wilcoxon(differences, np.zeros(120)).p == pytest.approx(by_flips, abs=0.01)


def test_rounding_does_not_break_ties() -> None:
    assert wilcoxon([0.3, 0.1, 0.4], [0.2, 0.0, 0.5]) == wilcoxon([1, 1, -1], [0, 0, 0])


# All paired tests


@pytest.mark.parametrize("test", PAIRED_TESTS)
def test_the_same_scores_differ_in_nothing(test: PairedTest) -> None:
    found = test([1, 0, 1, 1], [1, 0, 1, 1])
    assert (found.p, found.note, found.n) == (1.0, NO_DIFFERENCE, 4)


@pytest.mark.parametrize("test", PAIRED_TESTS)
def test_one_question_can_prove_nothing(test: PairedTest) -> None:
    assert test([1], [0]).p == 1.0


@pytest.mark.parametrize("test", PAIRED_TESTS)
@given(pairs=right_or_wrong)
def test_it_does_not_matter_which_comes_first(test: PairedTest, pairs: list[tuple[bool, bool]]) -> None:
    one, other = zip(*pairs, strict=True)
    here, there = test(one, other), test(other, one)

    assert 0 <= here.p <= 1
    assert here.p == pytest.approx(there.p)


@pytest.mark.parametrize("test", PAIRED_TESTS)
@pytest.mark.parametrize(
    ("one", "other", "field"),
    [
        ([], [], "one"),
        ([1, 0], [1], "other"),
        ([1], [math.nan], "other"),
        (["yes"], [1], "one"),
        (1, 1, "one"),
    ],
)
def test_what_is_no_pair_is_refused(test: PairedTest, one: Any, other: Any, field: str) -> None:
    with pytest.raises(InvalidRequest) as refused:
        test(one, other)
    assert refused.value.field == field


# Cochran's Q


@given(st.lists(st.tuples(*[st.booleans()] * 4), min_size=1, max_size=40))
def test_cochran_s_q_is_its_formula(rows: list[tuple[bool, ...]]) -> None:
    table = np.asarray(rows, dtype=int)
    k, by_strategy, by_question = 4, table.sum(axis=0), table.sum(axis=1)
    spread = k * by_question.sum() - (by_question**2).sum()

    found = cochrans_q(list(table.T))

    if spread == 0:
        assert (found.p, found.note) == (1.0, NO_DIFFERENCE)
    else:
        q = (k - 1) * (k * (by_strategy**2).sum() - by_strategy.sum() ** 2) / spread
        assert found.statistic == pytest.approx(q)
        assert found.p == pytest.approx(float(stats.chi2.sf(q, k - 1)))


def test_cochran_s_q_of_two_is_mcnemar_s_chi_squared() -> None:
    found = cochrans_q([[1] * 12 + [0] * 4 + [1] * 9, [0] * 12 + [1] * 4 + [1] * 9])
    assert found.statistic == pytest.approx((12 - 4) ** 2 / (12 + 4))
    assert (found.n, found.note) == (25, "")


def test_few_questions_that_differ_are_noted() -> None:
    assert cochrans_q([[1, 0, 1], [0, 0, 1], [0, 0, 1]]).note == "few questions differ: p is rough"


@pytest.mark.parametrize("strategies", [[], [[1, 0]], [[1, 0], [1]], [[1], [0.5]], [[], []]])
def test_cochran_s_q_refuses_what_cannot_be_compared(strategies: list[list[float]]) -> None:
    with pytest.raises(InvalidRequest, match="strategies"):
        cochrans_q(strategies)


# Holm


def test_holm_adjusts_step_down() -> None:
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx((0.03, 0.06, 0.06, 0.02))


def test_holm_is_what_statsmodels_says() -> None:
    draw = np.random.default_rng(8)
    for n in (1, 2, 5, 20):
        p_values = np.round(draw.random(n) ** 3, 2)
        assert holm(p_values.tolist()) == pytest.approx(tuple(multipletests(p_values, method="holm")[1]))


@given(st.lists(st.floats(0, 1), min_size=1, max_size=20))
def test_holm_never_lowers_a_p_and_keeps_their_order(p_values: list[float]) -> None:
    adjusted = holm(p_values)

    assert all(p <= a <= 1 for p, a in zip(p_values, adjusted, strict=True))
    in_order = [a for _, a in sorted(zip(p_values, adjusted, strict=True))]
    assert in_order == sorted(in_order)


def test_holm_of_no_comparisons_is_none_and_of_one_is_itself() -> None:
    assert holm([]) == ()
    assert holm([0.04]) == (0.04,)


@pytest.mark.parametrize("p_values", [[1.1], [-0.1], [math.nan]])
def test_holm_refuses_what_is_no_probability(p_values: list[float]) -> None:
    with pytest.raises(InvalidRequest) as refused:
        holm(p_values)
    assert refused.value.field == "p_values"
