"""Intervals, tests and calibration: one value a question, in the same order on both sides."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cache
from typing import Any

import numpy as np

from analysis.evaluation.tests.second.distributions import (
    chi_squared_tail,
    normal_quantile,
    normal_tail,
    t_quantile,
    t_tail,
)

Array = np.ndarray[Any, Any]
MARGIN, ALPHA, POWER = 0.05, 0.05, 0.8


def wilson(right: float, n: int) -> tuple[float, float]:
    z, p = normal_quantile(0.975), right / n
    root = z * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
    return (p + z * z / (2 * n) - root) / (1 + z * z / n), (p + z * z / (2 * n) + root) / (1 + z * z / n)


def clustered(scores: Array, clusters: Sequence[str]) -> tuple[float, float] | None:
    names = sorted(set(clusters))
    if len(names) < 2:
        return None
    residuals = scores - scores.mean()
    sums = [residuals[[each == name for each in clusters]].sum() for name in names]
    error = math.sqrt(len(names) / (len(names) - 1) * sum(s * s for s in sums)) / scores.size
    half = t_quantile(0.975, len(names) - 1) * error
    return max(0.0, scores.mean() - half), min(1.0, scores.mean() + half)


def bca(values: Array, seed: int, resamples: int = 9_999) -> tuple[float, float]:
    if np.ptp(values) < 1e-12:
        return float(values.mean()), float(values.mean())
    n, mean = values.size, values.mean()
    drawn = _drawn(n, seed, resamples) @ values / n
    below = ((drawn < mean - 1e-12).mean() + (drawn < mean + 1e-12).mean()) / 2
    without = (values.sum() - values) / (n - 1)
    away = without.mean() - without
    acceleration = (away**3).sum() / (6 * ((away**2).sum()) ** 1.5)
    bias = normal_quantile(float(below))
    ends = []
    for z in (normal_quantile(0.025), normal_quantile(0.975)):
        at = 1 - normal_tail(bias + (bias + z) / (1 - acceleration * (bias + z)))
        ends.append(float(np.quantile(drawn, at)))
    return ends[0], ends[1]


@cache
def _drawn(n: int, seed: int, resamples: int) -> Array:
    """How often each of n questions is in each resample."""
    return np.random.default_rng(seed).multinomial(n, [1 / n] * n, size=resamples)


def sign_flip(differences: Array, per_unit: int) -> float:
    """Exact, over all signs: the differences are whole numbers of `1 / per_unit`."""
    steps = np.rint(differences * per_unit).astype(int)
    assert np.allclose(steps / per_unit, differences)
    total = int(np.abs(steps).sum())
    chances = np.zeros(2 * total + 1)
    chances[total] = 1.0
    for step in steps:
        chances = (np.roll(chances, step) + np.roll(chances, -step)) / 2
    sums = np.arange(-total, total + 1)
    return float(chances[np.abs(sums) >= abs(int(steps.sum()))].sum())


def holm(p: Sequence[float]) -> list[float]:
    adjusted, highest = [0.0] * len(p), 0.0
    for place, index in enumerate(sorted(range(len(p)), key=lambda i: p[i])):
        highest = max(highest, min(1.0, (len(p) - place) * p[index]))
        adjusted[index] = highest
    return adjusted


def tost(differences: Array) -> float:
    n = differences.size
    least, error = (1 - MARGIN) ** n, differences.std(ddof=1) / math.sqrt(n)
    distance = MARGIN - abs(differences.mean())
    if error == 0:
        return least if distance > 0 else 1.0
    return max(least, t_tail(distance / error, n - 1))


def paired_t(differences: Array) -> tuple[float, float]:
    if not differences.any():
        return 0.0, 1.0
    t = differences.mean() / (differences.std(ddof=1) / math.sqrt(differences.size))
    return float(t), 2 * t_tail(abs(t), differences.size - 1)


def signed_ranks(differences: Array) -> Array:
    sizes = np.abs(np.round(differences, 12))
    ranks = np.array([(sizes < size).sum() + ((sizes == size).sum() + 1) / 2 for size in sizes])
    return ranks * np.sign(np.round(differences, 12))


def wilcoxon(differences: Array) -> tuple[float, float]:
    """The statistic and p: exact up to 50 questions, above that the normal approximation after Pratt."""
    ranks, n = signed_ranks(differences), differences.size
    if not ranks.any():
        return 0.0, 1.0
    up, down = ranks[ranks > 0].sum(), -ranks[ranks < 0].sum()
    if n <= 50:
        return min(up, down), sign_flip(ranks, 2)
    zeros = int((ranks == 0).sum())
    _, same = np.unique(np.abs(ranks[ranks != 0]), return_counts=True)
    mean = n * (n + 1) / 4 - zeros * (zeros + 1) / 4
    spread = n * (n + 1) * (2 * n + 1) - zeros * (zeros + 1) * (2 * zeros + 1) - (same**3 - same).sum() / 2
    return min(up, down), 2 * normal_tail(abs(up - mean) / math.sqrt(spread / 24))


def rank_biserial(differences: Array) -> float:
    ranks = signed_ranks(differences)
    return float(ranks.sum() / np.abs(ranks).sum()) if ranks.any() else 0.0


def cliffs_delta(one: Array, other: Array) -> float:
    return float(np.sign(one[:, None] - other[None, :]).mean())


def cochrans_q(right: Array) -> tuple[float, float]:
    """`right` has a row for each question and a column for each strategy."""
    k, columns, rows = right.shape[1], right.sum(axis=0), right.sum(axis=1)
    if not (rows * (k - rows)).any():
        return 0.0, 1.0
    q = (k - 1) * (k * (columns**2).sum() - columns.sum() ** 2) / (k * rows.sum() - (rows**2).sum())
    return float(q), chi_squared_tail(float(q), k - 1)


def needed(difference: float, squared: float, alpha: float) -> float:
    """How many questions, by Connor."""
    null, shown = normal_quantile(1 - alpha / 2), normal_quantile(POWER)
    return (
        (null * math.sqrt(squared) + shown * math.sqrt(max(0.0, squared - difference**2))) / difference
    ) ** 2


def smallest_difference(n: int, squared: float, alpha: float) -> float:
    low, high = 1e-9, math.sqrt(squared)
    for _ in range(50):
        middle = (low + high) / 2
        low, high = (middle, high) if needed(middle, squared, alpha) > n else (low, middle)
    return high


def calibration_error(sure: Array, right: Array) -> float:
    places = np.minimum(np.floor(sure * 10), 9)
    parts = [places == place for place in range(10) if (places == place).any()]
    return float(
        sum(inside.sum() * abs(right[inside].mean() - sure[inside].mean()) for inside in parts) / sure.size
    )


def scores_of_the_surest(sure: Array, right: Array) -> Array:
    """The mean score of the k surest, for each k: equally sure ones count with their mean."""
    smooth = np.array([right[sure == each].mean() for each in sure])
    ordered = smooth[np.argsort(-sure, kind="stable")]
    return np.cumsum(ordered) / np.arange(1, sure.size + 1)
