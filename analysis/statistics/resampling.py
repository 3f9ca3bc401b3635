"""Bootstrap and permutation of many comparisons at once: every column of a table in the same resamples.

One draw of questions serves all columns, and all sums are matrix products: a hundred comparisons cost little
more than one. The rows are the questions; with repetitions, a row holds the questions' means.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import special

from analysis.statistics.checks import Floats, at_least, share
from analysis.statistics.results import CONFIDENCE
from schemas.errors import InvalidRequest

RESAMPLES = 9_999
"""One less than a round number, so that a quantile is one of the resamples (Davison and Hinkley 1997)."""
PERMUTATIONS = 9_999
FEWEST = 99
"""Fewer resamples or permutations say nothing of a tail."""
MOST_FOR_ALL_SIGNS = 12
"""With so few questions all `2^n` ways to flip the signs are looked at, and p is exact."""

_IN_A_BATCH = 4_000_000
_EQUAL_WITHIN = 1e-12


def bca_columns(
    table: ArrayLike, *, seed: int, confidence: float = CONFIDENCE, resamples: int = RESAMPLES
) -> Floats:
    """The BCa interval of the mean of each column, as rows of (low, high) (Efron 1987).

    The acceleration comes from the jackknife, which for a mean is the skewness of the column. A column whose
    values are all the same has its mean on both ends; so has a single question, which says nothing.
    """
    values, level = _table(table), share(confidence, "confidence")
    at_least(FEWEST, resamples, "resamples")
    means = values.mean(axis=0)
    replicates = _resampled_means(values, resamples, np.random.default_rng(seed))
    below = (replicates < means).mean(axis=0) + (replicates == means).mean(axis=0) / 2
    with np.errstate(divide="ignore", invalid="ignore"):
        bias = special.ndtri(below)
        z = special.ndtri(np.array([[(1 - level) / 2], [(1 + level) / 2]]))
        quantiles = special.ndtr(bias + (bias + z) / (1 - _acceleration(values) * (bias + z)))
    bounds = np.column_stack(
        [
            np.quantile(column, np.nan_to_num(at, nan=0.5))
            for column, at in zip(replicates.T, quantiles.T, strict=True)
        ]
    )
    constant = np.ptp(values, axis=0) <= _EQUAL_WITHIN * np.maximum(1.0, np.abs(means))
    intervals: Floats = np.where(constant, means, bounds).T
    return intervals


def sign_flip_columns(
    differences: ArrayLike,
    *,
    seed: int,
    permutations: int = PERMUTATIONS,
    clusters: Sequence[Hashable] | None = None,
) -> Floats:
    """The two-sided p of each column's mean under random signs (Fisher 1935; Good 2005).

    If two strategies are equally good, a difference is as likely with the other sign. p counts the actual
    signs among the permutations, so it is never 0; with few questions all signs are tried and it is exact.
    With `clusters`, one for each row, all rows of a cluster get the same sign: questions on one topic, or
    made from one template, are then one witness and not many (Good 2005, ch. 3; Liang and Zeger 1986 of the
    idea).
    """
    values = _table(differences)
    if clusters is not None:
        values = sums_by_cluster(values, clusters)
    at_least(FEWEST, permutations, "permutations")
    n = values.shape[0]
    actual = np.abs(values.sum(axis=0)) - _EQUAL_WITHIN * n
    if n <= MOST_FOR_ALL_SIGNS:
        signs = 1.0 - 2.0 * ((np.arange(2**n)[:, None] >> np.arange(n)) & 1)
        share_as_uneven: Floats = (np.abs(signs @ values) >= actual).mean(axis=0)
        return share_as_uneven
    dice = np.random.default_rng(seed)
    as_uneven = np.zeros(values.shape[1])
    for count in _batches(permutations, n):
        signs = 1.0 - 2.0 * dice.integers(0, 2, size=(count, n))
        as_uneven += (np.abs(signs @ values) >= actual).sum(axis=0)
    p: Floats = (as_uneven + 1) / (permutations + 1)
    return p


def sums_by_cluster(values: Floats, clusters: Sequence[Hashable]) -> Floats:
    """The sum of the rows of each cluster, in the order in which clusters first come."""
    if len(clusters) != values.shape[0]:
        raise InvalidRequest(
            f"clusters: there are {len(clusters)} for {values.shape[0]} questions", field="clusters"
        )
    number = {cluster: place for place, cluster in enumerate(dict.fromkeys(clusters))}
    sums: Floats = np.zeros((len(number), values.shape[1]))
    np.add.at(sums, [number[cluster] for cluster in clusters], values)
    return sums


def _resampled_means(values: Floats, resamples: int, dice: np.random.Generator) -> Floats:
    """The columns' means in each resample: how often each question was drawn, times the table."""
    n = values.shape[0]
    means = []
    for count in _batches(resamples, n):
        drawn = dice.integers(0, n, size=(count, n)) + n * np.arange(count)[:, None]
        often = np.bincount(drawn.ravel(), minlength=count * n).reshape(count, n)
        means.append(often @ values / n)
    return np.concatenate(means)


def _acceleration(values: Floats) -> Floats:
    """`sum d^3 / (6 (sum d^2)^1.5)` of the deviations d from the mean; 0 where there are none."""
    deviations = values - values.mean(axis=0)
    squares = np.square(deviations).sum(axis=0)
    cubes = (deviations**3).sum(axis=0)
    skewed: Floats = np.divide(cubes, 6 * squares**1.5, out=np.zeros_like(cubes), where=squares > 0)
    return skewed


def _batches(total: int, n: int) -> list[int]:
    """`total` in pieces whose matrices fit into memory."""
    most = max(1, _IN_A_BATCH // n)
    return [min(most, total - start) for start in range(0, total, most)]


def _table(table: ArrayLike) -> Floats:
    values: NDArray[np.float64] = np.asarray(table, dtype=np.float64)
    if values.ndim != 2 or values.size == 0 or not np.isfinite(values).all():
        raise InvalidRequest("table: a row of finite numbers for each question is needed", field="table")
    return values
