"""Calibration and selective prediction: whether a confidence says how often one is right.

Every question has a confidence from 0 to 1 and a score from 0 to 1: 1 if right, a fraction where the answer
fell by lot.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from analysis.statistics.checks import Floats, paired
from schemas.errors import InvalidRequest

BINS = 10


@dataclass(frozen=True)
class Bin:
    """The questions whose confidence is from `low` to `high`: how many, how sure and how right on average."""

    low: float
    high: float
    count: int
    confidence: float
    score: float


def reliability(confidences: ArrayLike, scores: ArrayLike, bins: int = BINS) -> tuple[Bin, ...]:
    """The reliability diagram: bins of equal width that have questions. A confidence of 1 is in the last."""
    sure, right = _checked(confidences, scores)
    places = np.minimum((sure * bins).astype(np.int64), bins - 1)
    return tuple(
        Bin(
            place / bins,
            (place + 1) / bins,
            int(inside.sum()),
            float(sure[inside].mean()),
            float(right[inside].mean()),
        )
        for place in range(bins)
        if (inside := places == place).any()
    )


def expected_calibration_error(confidences: ArrayLike, scores: ArrayLike, bins: int = BINS) -> float:
    """`sum_b n_b / n |score_b - confidence_b|` over the bins (Naeini et al. 2015; Guo et al. 2017)."""
    found = reliability(confidences, scores, bins)
    total = sum(each.count for each in found)
    return sum(each.count * abs(each.score - each.confidence) for each in found) / total


def selective_scores(confidences: ArrayLike, scores: ArrayLike) -> Floats:
    """The mean score of the k surest questions, for k from 1 to all of them.

    Of questions that are equally sure it is not known which come first: each counts with their mean, which
    is the expected value over all orders.
    """
    sure, right = _checked(confidences, scores)
    _, groups = np.unique(-sure, return_inverse=True)
    means = np.bincount(groups, weights=right) / np.bincount(groups)
    ordered = means[np.sort(groups)]
    selected: Floats = np.cumsum(ordered) / np.arange(1, ordered.size + 1)
    return selected


def score_at_coverage(confidences: ArrayLike, scores: ArrayLike, coverage: float) -> float:
    """The mean score if only so large a part is answered, the surest; at least one question."""
    if not 0 < coverage <= 1:
        raise InvalidRequest(f"coverage: {coverage} is not above 0 and at most 1", field="coverage")
    found = selective_scores(confidences, scores)
    return float(found[max(1, round(coverage * found.size)) - 1])


def area_under_risk_coverage(confidences: ArrayLike, scores: ArrayLike) -> float:
    """The mean of the risk, 1 - score, over all coverages (Geifman and El-Yaniv 2017)."""
    return float(1 - selective_scores(confidences, scores).mean())


def _checked(confidences: ArrayLike, scores: ArrayLike) -> tuple[Floats, Floats]:
    sure, right = paired(confidences, scores)
    for field, values in (("one", sure), ("other", right)):
        if ((values < 0) | (values > 1)).any():
            raise InvalidRequest(f"{field}: every value must be from 0 to 1", field=field)
    return sure, right
