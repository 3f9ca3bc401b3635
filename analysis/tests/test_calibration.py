"""Calibration and selective prediction, against figures by hand and a second implementation in loops."""

from __future__ import annotations

import numpy as np
import pytest

from analysis.statistics.calibration import (
    area_under_risk_coverage,
    expected_calibration_error,
    reliability,
    score_at_coverage,
    selective_scores,
)
from schemas.errors import InvalidRequest


def test_figures_by_hand() -> None:
    sure, right = [0.95, 0.85, 0.85, 0.55], [1, 1, 0, 0]
    assert expected_calibration_error(sure, right) == pytest.approx((0.05 + 2 * 0.35 + 0.55) / 4)
    assert selective_scores(sure, right).tolist() == pytest.approx([1, 0.75, 2 / 3, 0.5])
    assert score_at_coverage(sure, right, 0.5) == pytest.approx(0.75)
    assert area_under_risk_coverage(sure, right) == pytest.approx((0 + 0.25 + 1 / 3 + 0.5) / 4)
    (low, middle, high) = reliability(sure, right)
    assert (low.count, middle.count, high.count) == (1, 2, 1)
    assert (middle.low, middle.high, middle.score) == (0.8, 0.9, 0.5)


def test_a_second_implementation_in_loops_says_the_same() -> None:
    draw = np.random.default_rng(5)
    for n in (1, 7, 400):
        sure = np.round(draw.random(n), 2 if n > 7 else 6)  # so that some are equally sure
        sure[0] = 1.0
        right = draw.choice([0.0, 0.5, 1.0], n)
        error = 0.0
        for place in range(10):
            inside = [i for i in range(n) if min(int(sure[i] * 10), 9) == place]
            if inside:
                gap = np.mean([right[i] for i in inside]) - np.mean([sure[i] for i in inside])
                error += len(inside) / n * abs(float(gap))
        assert expected_calibration_error(sure, right) == pytest.approx(error)
        expected = []
        for k in range(1, n + 1):
            edge = sorted(sure, reverse=True)[k - 1]
            above = [right[i] for i in range(n) if sure[i] > edge]
            equal = [right[i] for i in range(n) if sure[i] == edge]
            expected.append((sum(above) + (k - len(above)) * np.mean(equal)) / k)
        assert selective_scores(sure, right) == pytest.approx(expected)
        assert area_under_risk_coverage(sure, right) == pytest.approx(1 - np.mean(expected))


def test_what_is_no_probability_is_refused() -> None:
    with pytest.raises(InvalidRequest, match="from 0 to 1"):
        reliability([1.2], [1])
    with pytest.raises(InvalidRequest, match="coverage"):
        score_at_coverage([0.5], [1], 0)
