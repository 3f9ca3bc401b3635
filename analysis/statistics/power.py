"""Power: how many questions a difference takes, and how small a difference so many questions can show.

For two strategies that are right or wrong on the same questions, after Connor 1987:

    n = (z_{alpha/2} + z_power)^2 (p_d - d^2) / d^2

with d the difference in accuracy and p_d the discordance, the share of questions that just one has right.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike
from scipy import stats

from analysis.statistics.checks import at_least, paired_right_or_wrong, share
from schemas.errors import InvalidRequest

ALPHA = 0.05
POWER = 0.8


def observed_discordance(one: ArrayLike, other: ArrayLike) -> float:
    """The share of questions that just one of the two has right.

    0 if they never differ, which is no discordance to plan with: the upper end of its Wilson interval is.
    """
    first, second = paired_right_or_wrong(one, other)
    return float(np.mean(first != second))


def questions_needed(
    difference: float, discordance: float, *, alpha: float = ALPHA, power: float = POWER
) -> int:
    """How many questions show a `difference` in accuracy (0.05 is five points) with probability `power`.

    The sign of the difference does not matter. InvalidRequest if it is 0, or greater than the discordance,
    which cannot be.
    """
    _check_discordance(discordance)
    if not 0 < abs(difference) <= discordance:
        raise InvalidRequest(
            f"difference: {difference} must be other than 0, and at most the discordance, {discordance}",
            field="difference",
        )
    square = difference**2
    return max(1, math.ceil(_quantiles_squared(alpha, power) * (discordance - square) / square))


def smallest_detectable_difference(
    n: int, discordance: float, *, alpha: float = ALPHA, power: float = POWER
) -> float:
    """The smallest difference in accuracy that n questions show with probability `power`.

    The inverse of `questions_needed`. Observed differences that are smaller are ties. Where it is greater
    than the discordance, which no difference can be, so few questions show nothing at all.
    """
    at_least(1, n, "n")
    _check_discordance(discordance)
    needed = _quantiles_squared(alpha, power)
    return math.sqrt(needed * discordance / (n + needed))


def _check_discordance(discordance: float) -> None:
    if not 0 < discordance <= 1:
        raise InvalidRequest(
            f"discordance: {discordance} must be greater than 0 and at most 1", field="discordance"
        )


def _quantiles_squared(alpha: float, power: float) -> float:
    """`(z_{alpha/2} + z_power)^2`."""
    alpha, power = share(alpha, "alpha"), share(power, "power")
    return max(0.0, float(stats.norm.isf(alpha / 2) + stats.norm.ppf(power))) ** 2
