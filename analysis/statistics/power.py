"""Power: how many questions a difference takes, and how small a difference so many questions can show.

For two strategies on the same questions, after Connor 1987 (Biometrics 43, formula for McNemar's test):

    n = (z_{alpha/2} sqrt(v) + z_power sqrt(v - d^2))^2 / d^2

with d the mean difference and v the mean squared difference: its variance where there is none to be found is
v, and v - d^2 where there is one. Of questions that are right or wrong, v is the discordance, the share of
questions that just one has right. With repetitions, or with expected scores, differences lie in between, and
v is smaller.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence

import numpy as np
from numpy.typing import ArrayLike
from scipy import stats

from analysis.statistics.checks import at_least, paired, share
from analysis.statistics.resampling import sums_by_cluster
from schemas.errors import InvalidRequest

ALPHA = 0.05
POWER = 0.8


def squared_difference(one: ArrayLike, other: ArrayLike, clusters: Sequence[Hashable] | None = None) -> float:
    """v: the mean squared difference; of questions that are right or wrong, their discordance.

    With `clusters`, one for each question, it is `sum_c (sum_{i in c} d_i)^2 / n`, so that `v / n` is still
    the variance of the mean; then it may be greater than 1. 0 if they never differ, which is nothing to plan
    with.
    """
    first, second = paired(one, other)
    differing = (first - second)[:, None]
    sums = differing if clusters is None else sums_by_cluster(differing, clusters)
    return float(np.square(sums).sum()) / first.size


def questions_needed(difference: float, squared: float, *, alpha: float = ALPHA, power: float = POWER) -> int:
    """How many questions show a `difference` in accuracy (0.05 is five points) with probability `power`.

    `squared` is v, the mean squared difference. The sign of the difference does not matter. InvalidRequest if
    it is 0, or if its square is greater than v, which cannot be.
    """
    _check_squared(squared)
    if not 0 < difference**2 <= squared:
        raise InvalidRequest(
            f"difference: {difference} must be other than 0, and its square at most {squared}",
            field="difference",
        )
    null, shown = _quantiles(alpha, power)
    root = null * math.sqrt(squared) + shown * math.sqrt(squared - difference**2)
    return max(1, math.ceil(max(0.0, root) ** 2 / difference**2))


def smallest_detectable_difference(
    n: int, squared: float, *, alpha: float = ALPHA, power: float = POWER
) -> float:
    """The smallest difference in accuracy that n questions show with probability `power`.

    The inverse of `questions_needed`. Of a family of m comparisons alpha is that of the family by m, as
    Holm's first step takes it. Where the result is greater than `sqrt(squared)`, which no difference can be,
    so few questions show nothing at all.
    """
    at_least(1, n, "n")
    _check_squared(squared)
    null, shown = _quantiles(alpha, power)
    under_root = n + shown**2 - null**2
    if under_root < 0 or null**2 > n:
        return null * math.sqrt(squared / n)
    return (null * math.sqrt(n) + shown * math.sqrt(under_root)) / (n + shown**2) * math.sqrt(squared)


def _check_squared(squared: float) -> None:
    if not (squared > 0 and math.isfinite(squared)):
        raise InvalidRequest(f"squared: {squared} must be greater than 0", field="squared")


def _quantiles(alpha: float, power: float) -> tuple[float, float]:
    """`z_{alpha/2}` and `z_power`."""
    alpha, power = share(alpha, "alpha"), share(power, "power")
    return float(stats.norm.isf(alpha / 2)), float(stats.norm.ppf(power))
