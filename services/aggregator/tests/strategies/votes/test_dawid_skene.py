"""Dawid and Skene's model: posteriors by hand, and error rates that are recovered."""

from __future__ import annotations

import math
import random
from collections.abc import Mapping, Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.aggregator.scores.history import Confusion
from services.aggregator.strategies import Ballot, StrategyContext
from services.aggregator.strategies.votes.dawid_skene import (
    OPEN_QUESTION,
    chance_of,
    dawid_skene,
    expected_counts,
    fit,
    posterior_of,
)

MANY = 1e9


def counts(rows: Sequence[Sequence[float]]) -> Confusion:
    """An agent's error rates, seen so often that smoothing hardly matters."""
    return tuple(rate * MANY for row in rows for rate in row)


GOOD = counts([[0.9, 0.1], [0.2, 0.8]])
POOR = counts([[0.6, 0.4], [0.5, 0.5]])


def drawn(
    rates: Mapping[str, Sequence[Sequence[float]]], n: int, seed: int
) -> tuple[list[dict[str, int]], list[int]]:
    """Answers of agents with these error rates to `n` questions, and what was right."""
    chance = random.Random(seed)
    options = len(next(iter(rates.values())))
    right = [chance.randrange(options) for _ in range(n)]
    return [
        {agent: chance.choices(range(options), rows[s])[0] for agent, rows in rates.items()} for s in right
    ], right


def test_a_posterior_is_the_product_of_likelihoods_as_by_hand() -> None:
    posterior = posterior_of({"x": 0, "y": 1}, {"x": GOOD, "y": POOR}, options=2)
    a, b = 0.9 * 0.4, 0.2 * 0.5
    assert posterior == pytest.approx([a / (a + b), b / (a + b)], abs=1e-6)


def test_one_good_agent_outweighs_two_poor_ones() -> None:
    context = StrategyContext(seed="r", options=2, confusions={"x": GOOD, "y": POOR, "z": POOR})
    decision = dawid_skene([Ballot("x", "", "A"), Ballot("y", "", "B"), Ballot("z", "", "B")], context)
    a, b = 0.9 * 0.4 * 0.4, 0.2 * 0.5 * 0.5
    assert decision.answer == "A"
    assert decision.scores == pytest.approx({"A": a / (a + b), "B": b / (a + b)}, abs=1e-6)
    assert decision.share == pytest.approx(a / (a + b), abs=1e-6)
    assert [vote.weight for vote in decision.votes] == pytest.approx([0.9, 0.5, 0.5], abs=1e-6)


@given(st.integers(2, 6), st.lists(st.floats(0, 50), min_size=36, max_size=36), st.integers(0, 5))
def test_error_rates_are_probabilities(options: int, seen: list[float], right: int) -> None:
    chances = [chance_of(tuple(seen[: options**2]), options, right % options, a) for a in range(options)]
    assert math.fsum(chances) == pytest.approx(1)
    assert all(chance > 0 for chance in chances)


def test_em_recovers_error_rates_without_right_answers() -> None:
    rates = {
        "good": [[0.9, 0.05, 0.05], [0.05, 0.9, 0.05], [0.05, 0.05, 0.9]],
        "fair": [[0.7, 0.2, 0.1], [0.1, 0.7, 0.2], [0.2, 0.1, 0.7]],
        "lazy": [[0.8, 0.1, 0.1], [0.5, 0.4, 0.1], [0.5, 0.1, 0.4]],
        "poor": [[0.5, 0.25, 0.25], [0.25, 0.5, 0.25], [0.25, 0.25, 0.5]],
    }
    questions, right = drawn(rates, 1500, seed=7)

    fitted = fit(questions, options=3)

    for agent, rows in rates.items():
        found = [[chance_of(fitted[agent], 3, s, a) for a in range(3)] for s in range(3)]
        assert [pytest.approx(row, abs=0.08) for row in rows] == found
    chosen = [max(range(3), key=posterior_of(said, fitted, 3).__getitem__) for said in questions]
    votes = [max(range(3), key=list(said.values()).count) for said in questions]
    assert hits(chosen, right) > hits(votes, right)


def hits(chosen: Sequence[int], right: Sequence[int]) -> int:
    return sum(one == other for one, other in zip(chosen, right, strict=True))


def test_one_question_after_another_teaches_nearly_what_all_together_do() -> None:
    rates = {
        "good": [[0.9, 0.1], [0.15, 0.85]],
        "fair": [[0.75, 0.25], [0.25, 0.75]],
        "poor": [[0.6, 0.4], [0.4, 0.6]],
    }
    questions, _ = drawn(rates, 1200, seed=11)
    known: dict[str, Confusion] = {}
    for said in questions:
        for agent, added in expected_counts(said, known, 2).items():
            known[agent] = tuple(a + b for a, b in zip(known.get(agent, (0.0,) * 4), added, strict=True))
    together = fit(questions, 2)
    for agent in rates:
        for option in range(2):
            assert chance_of(known[agent], 2, option, option) == pytest.approx(
                chance_of(together[agent], 2, option, option), abs=0.1
            )


def test_what_a_question_adds_is_one_answer_of_each_agent() -> None:
    added = expected_counts({"x": 2, "y": 0}, {}, options=3)
    assert math.fsum(added["x"]) == pytest.approx(1)
    assert [added["x"][3 * s + a] for s in range(3) for a in (0, 1)] == [0.0] * 6


def test_who_says_no_option_abstains_and_an_open_question_goes_to_the_majority() -> None:
    closed = dawid_skene([Ballot("x", "", "A"), Ballot("y", "", "Z")], StrategyContext(seed="r", options=3))
    assert (closed.answer, closed.abstained) == ("A", ("y",))
    opened = dawid_skene([Ballot("x", "18", "18"), Ballot("y", "18", "18")], StrategyContext(seed="r"))
    assert (opened.answer, opened.note) == ("18", OPEN_QUESTION)
