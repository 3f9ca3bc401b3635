"""How sure each strategy is of its decisions, and what that is worth."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from analysis.evaluation.contestants.outcome import Outcome
from analysis.evaluation.scoring.scores import Contestant
from analysis.statistics.calibration import (
    area_under_risk_coverage,
    expected_calibration_error,
    score_at_coverage,
)

Row = dict[str, Any]

COVERAGES = (50, 80, 90)
"""In percent."""


def sure_and_right(contestant: Contestant) -> tuple[list[float], list[float]]:
    """Confidence and score of every sample; one that says nothing is not sure at all."""
    return [outcome.confidence or 0.0 for outcome in contestant.outcomes], _scores(contestant.outcomes)


def _scores(outcomes: Sequence[Outcome]) -> list[float]:
    return [outcome.expected for outcome in outcomes]


def selective_columns(contestant: Contestant) -> Row:
    """The columns of a summary, all None for who says nothing of how sure it is.

    `ece_share` takes the winner's part of the votes for a confidence, which it is not meant to be; `ece` and
    the others the probability that the answer is right, as votes and history tell.
    """
    outcomes = contestant.outcomes
    row: Row = dict.fromkeys(("ece_share", "ece", "aurc", *(f"accuracy_at_{part}" for part in COVERAGES)))
    if contestant.group == "strategy" and all(outcome.share is not None for outcome in outcomes):
        shares = [min(1.0, outcome.share or 0.0) for outcome in outcomes]
        row["ece_share"] = expected_calibration_error(shares, _scores(outcomes))
    if all(outcome.confidence is not None for outcome in outcomes):
        sure, right = sure_and_right(contestant)
        row["ece"] = expected_calibration_error(sure, right)
        row["aurc"] = area_under_risk_coverage(sure, right)
        for part in COVERAGES:
            row[f"accuracy_at_{part}"] = score_at_coverage(sure, right, part / 100)
    return row
