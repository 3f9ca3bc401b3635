"""`auto` on held-out thirds: by hand, and against t tests of scipy."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from analysis.evaluation.asking.exchange import Exchange
from analysis.evaluation.contestants.replay import strategy_outcomes
from analysis.evaluation.scoring.held_out import held_out_rows, one_sided, third_of
from analysis.evaluation.scoring.reading import read_run
from analysis.evaluation.tests.kept import CHOICES, TOKENS, WAYS, exchange

SEED = 7
SPECIALISTS = {"paint": "one", "flags": "two"}


def run(count: int) -> list[Exchange]:
    """Questions on two topics, each with a specialist that is right while the others say something wrong."""
    kept = []
    for n in range(count):
        topic = ("paint", "flags")[n % 2]
        said = {
            agent: CHOICES[0] if agent == SPECIALISTS[topic] else CHOICES[1 + n % 3]
            for agent in ("one", "two", "three")
        }
        kept.append(exchange(n, "A", said, topic=topic))
    return kept


def test_specialists_are_asked_alone_and_beat_the_best_agent() -> None:
    asked = read_run(run(60), WAYS)
    (row,) = held_out_rows(asked, SEED)
    assert sum(third_of(each, SEED) == 0 for each in asked) in range(10, 31)
    assert (row["single"], row["accuracy"]) == (60, 1.0)
    assert row["accuracy_of_best"] == pytest.approx(0.5, abs=0.1)
    assert (row["verdict"], row["tokens_beside_best"], row["tokens_per_question"]) == ("better", 1.0, TOKENS)


def test_where_nobody_differs_it_is_a_tie() -> None:
    kept = [exchange(n, "A", dict.fromkeys(("one", "two"), CHOICES[0])) for n in range(12)]
    (row,) = held_out_rows(read_run(kept, WAYS), SEED)
    assert (row["verdict"], row["lower_bound"], row["upper_bound"]) == ("a tie", 0.0, 0.0)


def test_the_bounds_are_those_of_one_sided_t_tests() -> None:
    differences = np.array([1.0, 0.0, 0.0, -1.0, 1.0, 0.5])
    low, high = one_sided(differences)
    assert stats.ttest_1samp(differences, low, alternative="greater").pvalue == pytest.approx(0.05)
    assert stats.ttest_1samp(differences, high, alternative="less").pvalue == pytest.approx(0.05)
    assert one_sided(differences[:1]) == (-1.0, 1.0)


def test_a_decision_of_auto_is_charged_for_whom_it_asks() -> None:
    outcomes = strategy_outcomes(read_run(run(60), WAYS), ["auto", "majority"])
    late = {o.contestant: o for o in outcomes if o.question_id == "q59"}
    assert (late["auto"].calls, late["auto"].tokens, late["auto"].right) == (1, TOKENS, True)
    assert late["majority"].calls == 3
