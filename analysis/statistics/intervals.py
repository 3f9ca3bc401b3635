"""Intervals: Wilson for a proportion, BCa bootstrap for a mean or a difference, clustered for repetitions."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike
from scipy import stats

from analysis.statistics.checks import Floats, at_least, paired, scores, share
from analysis.statistics.questions import Questions
from analysis.statistics.results import CONFIDENCE, Estimate, Interval
from schemas.errors import InvalidRequest

RESAMPLES = 9999
"""One less than a round number, so that a quantile is one of the resamples (Davison and Hinkley 1997)."""

FEWEST_RESAMPLES = 99

ONE_QUESTION = "one question says nothing about the spread"

_IN_A_BATCH = 4_000_000
"""How many resampled scores are in memory at once: 32 MB."""

_EQUAL_WITHIN = 1e-12


def wilson(right: float, n: int, confidence: float = CONFIDENCE) -> Estimate:
    """The proportion `right / n` with Wilson's score interval (Wilson 1927); it never leaves [0, 1].

    `right` may be a fraction: with repetitions it is the sum of the questions' mean scores, and `n` the
    number of questions.
    """
    at_least(1, n, "n")
    if not 0 <= right <= n:
        raise InvalidRequest(f"right: {right} is not between 0 and n, {n}", field="right")
    z = _two_sided_z(confidence)
    p = right / n
    middle = (p + z**2 / (2 * n)) / (1 + z**2 / n)
    half = z / (1 + z**2 / n) * math.sqrt(p * (1 - p) / n + z**2 / (4 * n**2))
    return Estimate(
        value=p,
        interval=(max(0.0, min(p, middle - half)), min(1.0, max(p, middle + half))),
        method="Wilson",
        n=n,
        confidence=confidence,
    )


def bca_mean(
    values: ArrayLike, *, seed: int, confidence: float = CONFIDENCE, resamples: int = RESAMPLES
) -> Estimate:
    """The mean of one value a question, with a bias-corrected and accelerated interval (Efron 1987).

    Questions are resampled; with repetitions, `values` are the questions' means.
    """
    return _bca(scores(values, "values"), seed, confidence, resamples)


def bca_difference(
    one: ArrayLike,
    other: ArrayLike,
    *,
    seed: int,
    confidence: float = CONFIDENCE,
    resamples: int = RESAMPLES,
) -> Estimate:
    """The mean of `one - other` with its BCa interval; the two stay paired in every resample."""
    first, second = paired(one, other)
    return _bca(first - second, seed, confidence, resamples)


def clustered_mean(
    questions: Questions, confidence: float = CONFIDENCE, bounds: Interval | None = (0.0, 1.0)
) -> Estimate:
    """The mean of all samples, with a standard error that knows that repetitions are not independent.

    `sqrt(C/(C-1) sum_c (sum_{i in c} (s_i - mean))^2) / n` over C questions and n samples (Liang and Zeger
    1986; Miller 2024, arXiv:2411.00640); the interval is t's with C-1 degrees of freedom, cut at `bounds`,
    which are those of the scores: None for scores without any, such as seconds.
    """
    level = share(confidence, "confidence")
    clusters = questions.n
    mean = float(questions.samples.mean())
    if clusters == 1:
        return Estimate(
            value=mean,
            interval=None,
            method="clustered",
            n=1,
            confidence=level,
            note=ONE_QUESTION,
        )
    of_questions = questions.sums_of(questions.samples - mean)
    error = math.sqrt(clusters / (clusters - 1) * float(np.square(of_questions).sum())) / questions.n_samples
    half = float(stats.t.ppf(0.5 + level / 2, clusters - 1)) * error
    least, greatest = bounds or (-math.inf, math.inf)
    return Estimate(
        value=mean,
        interval=(max(least, mean - half), min(greatest, mean + half)),
        method="clustered",
        n=clusters,
        confidence=level,
        standard_error=error,
    )


def _bca(values: Floats, seed: int, confidence: float, resamples: int) -> Estimate:
    level = share(confidence, "confidence")
    at_least(FEWEST_RESAMPLES, resamples, "resamples")
    mean = float(values.mean())
    note = ""
    interval: Interval | None
    if values.size == 1:
        note, interval = ONE_QUESTION, None
    elif np.ptp(values) <= _EQUAL_WITHIN * max(1.0, abs(mean)):
        note, interval = "all questions have the same value: there is nothing to resample", (mean, mean)
    else:
        found = stats.bootstrap(
            (values,),
            np.mean,
            n_resamples=resamples,
            batch=max(1, _IN_A_BATCH // values.size),
            confidence_level=level,
            method="BCa",
            random_state=np.random.default_rng(seed),
        )
        interval = float(found.confidence_interval.low), float(found.confidence_interval.high)
    return Estimate(
        value=mean, interval=interval, method="BCa bootstrap", n=values.size, confidence=level, note=note
    )


def _two_sided_z(confidence: float) -> float:
    return float(stats.norm.ppf(0.5 + share(confidence, "confidence") / 2))
