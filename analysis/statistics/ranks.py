"""Signed ranks of paired differences: what Wilcoxon's test and its size of effect both count."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike
from scipy import stats

from analysis.statistics.checks import Floats, paired

_DECIMALS = 12
"""Differences are rounded to this before they are ranked: 0.3 - 0.2 and 0.1 are a tie."""


def differences(one: ArrayLike, other: ArrayLike) -> Floats:
    """`one - other` of each question, where differences that are equal but for rounding are equal."""
    first, second = paired(one, other)
    return np.round(first - second, _DECIMALS)


def signed_ranks(differing: Floats) -> Floats:
    """The rank of each difference's size, with its sign; ties share their mean rank.

    Zeros are ranked, as the smallest, and then count on neither side: theirs is 0 (Pratt 1959).
    """
    return np.sign(differing) * stats.rankdata(np.abs(differing))


def exact_p(ranks: Floats) -> float:
    """The two-sided p of a sum of signed ranks: the share of all ways to choose the signs that is as uneven.

    The distribution of the positive sum is built up rank by rank; twice a rank is a whole number, even
    of ties.
    """
    doubled = np.rint(2 * ranks[ranks != 0]).astype(np.int64)
    total = int(np.abs(doubled).sum())
    probability = np.zeros(total + 1)
    probability[0] = 1.0
    for step in np.abs(doubled):
        with_step = np.zeros_like(probability)
        with_step[step:] = probability[: total + 1 - step]
        probability = (probability + with_step) / 2
    unevenness = np.abs(2 * np.arange(total + 1) - total)
    return min(1.0, float(probability[unevenness >= abs(int(doubled.sum()))].sum()))
