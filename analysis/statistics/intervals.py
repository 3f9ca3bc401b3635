"""Intervals: Wilson or exact for a proportion, clustered for repetitions. Of bootstraps: resampling.py."""

from __future__ import annotations

import math

import numpy as np
from scipy import stats

from analysis.statistics.checks import at_least, share
from analysis.statistics.questions import Questions
from analysis.statistics.results import CONFIDENCE, Estimate, Interval
from schemas.errors import InvalidRequest

ONE_QUESTION = "one question says nothing about the spread"


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


def clopper_pearson(count: int, n: int, confidence: float = CONFIDENCE) -> Estimate:
    """The proportion `count / n` with the exact interval (Clopper and Pearson 1934).

    It covers the true one at least as often as it says: a promise of at most so many is held against its
    upper end.
    """
    at_least(1, n, "n")
    if not 0 <= count <= n:
        raise InvalidRequest(f"count: {count} is not between 0 and n, {n}", field="count")
    tail = (1 - share(confidence, "confidence")) / 2
    low = 0.0 if count == 0 else float(stats.beta.ppf(tail, count, n - count + 1))
    high = 1.0 if count == n else float(stats.beta.ppf(1 - tail, count + 1, n - count))
    return Estimate(
        value=count / n, interval=(low, high), method="Clopper-Pearson", n=n, confidence=confidence
    )


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


def _two_sided_z(confidence: float) -> float:
    return float(stats.norm.ppf(0.5 + share(confidence, "confidence") / 2))
