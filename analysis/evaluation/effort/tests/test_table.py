"""Cascades over kept answers: figures by hand, and nothing that exact changes."""

from __future__ import annotations

import random

import pytest
from scipy import stats

from analysis.evaluation.effort.table import EFFORTS, effort_rows
from analysis.evaluation.scoring.reading import read_run
from analysis.evaluation.tests.kept import CHOICES, TOKENS, WAYS, exchange
from analysis.statistics.intervals import clopper_pearson
from schemas.ensembles.strategies import SPECS
from schemas.errors import InvalidRequest

FOUR = ("one", "two", "three", "four")


def test_calls_and_tokens_that_were_not_needed_are_counted_by_hand() -> None:
    """Two questions on which three of four agree at once, and one on which all four are needed."""
    said = (("red",) * 4, ("blue",) * 4, ("red", "red", "blue", "green"))
    kept = [exchange(n, "A", dict(zip(FOUR, each, strict=True))) for n, each in enumerate(said)]
    exact = effort_rows(read_run(kept, WAYS), ["majority", "concat", "debate"])[0]
    assert (exact["voters"], exact["members"], exact["strategy"], exact["effort"]) == (
        "agents", 4, "majority", "exact",
    )  # fmt: skip
    assert exact["calls_per_question"] in (pytest.approx(10 / 3), pytest.approx(3.0))  # by the lot of a tie
    assert exact["tokens_per_question"] == pytest.approx(TOKENS * exact["calls_per_question"])
    assert exact["saved_calls"] == pytest.approx(exact["saved_tokens"])
    assert (exact["changed"], exact["n_questions"], exact["mean_bound"]) == (0, 3, 0.0)
    assert exact["accuracy"] == exact["accuracy_of_all"] == pytest.approx(2 / 3)


@pytest.mark.soak
def test_exact_changes_nothing_with_any_strategy_and_bounded_saves_no_less() -> None:
    draw = random.Random(3)
    kept = []
    for n in range(40):
        right = draw.randrange(4)
        said = {
            agent: CHOICES[right if draw.random() < 0.5 + 0.1 * skill else draw.randrange(4)]
            for skill, agent in enumerate(FOUR)
        }
        kept.append(exchange(n, "ABCD"[right], said))
        kept += [
            exchange(n, "ABCD"[right], {"four": CHOICES[draw.choice((right, right, 0))]}, sample=k)
            for k in range(1, 10)
        ]
    names = [spec.name for spec in SPECS if spec.cascades]
    rows = effort_rows(read_run(kept, WAYS), names)
    assert len(rows) == len(EFFORTS) * (len(names) + 3)
    most = {4: 0.25, 5: 0.4, 9: 4 / 9}
    for row in rows:
        if row["effort"] == "exact":
            assert row["changed"] == 0, row
            if row["strategy"] == "majority":
                assert 0 < row["saved_calls"] <= most[row["members"]] + 1e-9, row
        assert row["mean_bound"] <= (row["epsilon"] or 0.0)
        assert row["changed_low"] <= row["changed_share"] <= row["changed_high"]
    for voters, members, name in {(row["voters"], row["members"], row["strategy"]) for row in rows}:
        of_one = [r for r in rows if (r["voters"], r["members"], r["strategy"]) == (voters, members, name)]
        assert of_one[-1]["saved_calls"] >= of_one[0]["saved_calls"] - 0.05, of_one


def test_the_exact_interval_is_that_of_the_binomial_test() -> None:
    for count, n in ((0, 50), (3, 100), (50, 50)):
        found = stats.binomtest(count, n).proportion_ci(0.95, method="exact")
        assert clopper_pearson(count, n).interval == pytest.approx((found.low, found.high))
    with pytest.raises(InvalidRequest, match="count"):
        clopper_pearson(4, 3)
