"""Tests of significance: whether a difference between strategies is more than chance, two-sided.

Exact McNemar is the primary one where a question is right or wrong; t and Wilcoxon take mean scores.
Each takes one value a question, in the same order on both sides.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike
from scipy import stats

from analysis.statistics.checks import at_least, paired_right_or_wrong, right_or_wrong
from analysis.statistics.ranks import differences, exact_p, signed_ranks
from analysis.statistics.results import Significance
from schemas.errors import InvalidRequest

NO_DIFFERENCE = "all differences are zero"

ENOUGH_FOR_CHI_SQUARED = 24

MOST_FOR_EXACT_RANKS = 50
"""With more questions Wilcoxon's normal approximation, corrected for ties and zeros, is as good."""


def mcnemar(one: ArrayLike, other: ArrayLike) -> Significance:
    """Exact McNemar (McNemar 1947) of two strategies that are right or wrong on each question."""
    first, second = paired_right_or_wrong(one, other)
    return mcnemar_of_counts(int(np.sum(first & ~second)), int(np.sum(second & ~first)), n=int(first.size))


def mcnemar_of_counts(only_one: int, only_other: int, n: int) -> Significance:
    """Exact McNemar, from the number of the n questions that only the one or only the other has right.

    The binomial test that a question on which they differ falls to either with probability 1/2. The
    statistic is the smaller count.
    """
    at_least(0, only_one, "only_one")
    at_least(0, only_other, "only_other")
    at_least(max(1, only_one + only_other), n, "n")
    test = "exact McNemar"
    differing = only_one + only_other
    if differing == 0:
        return Significance(test=test, p=1.0, n=n, statistic=0.0, note=NO_DIFFERENCE)
    p = float(stats.binomtest(only_one, differing).pvalue)
    return Significance(test=test, p=min(1.0, p), n=n, statistic=float(min(only_one, only_other)))


def paired_t(one: ArrayLike, other: ArrayLike) -> Significance:
    """Student's t of the differences, with n-1 degrees of freedom.

    Where all differences are the same, and not zero, t has no spread to go by and would be infinite; the
    p is then that of the exact sign-flip test, `2 / 2^n`, and the note says so.
    """
    test = "paired t"
    differing = differences(one, other)
    n = int(differing.size)
    if not differing.any():
        return Significance(test=test, p=1.0, n=n, statistic=0.0, note=NO_DIFFERENCE)
    if np.ptp(differing) == 0:
        return Significance(
            test=test,
            p=2.0 ** (1 - n),
            n=n,
            statistic=None,
            note="all differences are the same: p is that of the exact sign-flip test",
        )
    found = stats.ttest_1samp(differing, 0.0)
    return Significance(test=test, p=float(found.pvalue), n=n, statistic=float(found.statistic))


def wilcoxon(one: ArrayLike, other: ArrayLike) -> Significance:
    """Wilcoxon's signed ranks; zeros are ranked and then left out (Pratt 1959).

    The statistic is the smaller sum of ranks. Exact, with ties and zeros, for up to 50 questions; the normal
    approximation for more.
    """
    test = "Wilcoxon (Pratt)"
    differing = differences(one, other)
    n = int(differing.size)
    if not differing.any():
        return Significance(test=test, p=1.0, n=n, statistic=0.0, note=NO_DIFFERENCE)
    ranks = signed_ranks(differing)
    if n <= MOST_FOR_EXACT_RANKS:
        p = exact_p(ranks)
    else:
        p = float(stats.wilcoxon(differing, zero_method="pratt").pvalue)
    smaller = min(float(ranks[ranks > 0].sum()), float(-ranks[ranks < 0].sum()))
    return Significance(test=test, p=p, n=n, statistic=smaller + 0.0)


def cochrans_q(strategies: Sequence[ArrayLike]) -> Significance:
    """Cochran's Q (Cochran 1950): whether several strategies are right equally often on the same questions.

    With two it is McNemar's chi-squared without continuity correction. p is chi-squared's with k-1
    degrees of freedom: an approximation, good where the number of strategies times the number of
    questions on which they differ is at least 24 (Tate and Brown 1970); the note says where it is not.
    """
    if len(strategies) < 2:
        raise InvalidRequest("strategies: at least two are needed to compare", field="strategies")
    rows = [right_or_wrong(each, f"strategies[{i}]") for i, each in enumerate(strategies)]
    if len({row.size for row in rows}) > 1:
        raise InvalidRequest("strategies: all must have the same questions", field="strategies")
    table = np.column_stack(rows).astype(np.int64)
    right_by_question = table.sum(axis=1)
    k = len(strategies)
    n = int(table.shape[0])
    differing = int(np.count_nonzero(right_by_question % k))
    if differing == 0:
        return Significance(test="Cochran's Q", p=1.0, n=n, statistic=0.0, note=NO_DIFFERENCE)
    # Imported where it is used: it brings pandas along, which takes longer than all other tests together.
    from statsmodels.stats.contingency_tables import cochrans_q as q_of_table

    found = q_of_table(table)
    return Significance(
        test="Cochran's Q",
        p=float(found.pvalue),
        n=n,
        statistic=float(found.statistic),
        note="few questions differ: p is rough" if k * differing < ENOUGH_FOR_CHI_SQUARED else "",
    )


def holm(p_values: Sequence[float]) -> tuple[float, ...]:
    """The p-values of a family of comparisons, adjusted step down (Holm 1979), in the order given.

    Whoever rejects what is at most alpha after this errs anywhere in the family with probability at most
    alpha. None for none.
    """
    p = np.asarray(p_values, dtype=np.float64)
    if p.ndim != 1 or not ((p >= 0) & (p <= 1)).all():
        raise InvalidRequest("p_values: each must be a number from 0 to 1", field="p_values")
    order = np.argsort(p, kind="stable")
    times = np.arange(p.size, 0, -1)
    adjusted = np.empty_like(p)
    adjusted[order] = np.minimum(1.0, np.maximum.accumulate(times * p[order]))
    return tuple(adjusted.tolist())
