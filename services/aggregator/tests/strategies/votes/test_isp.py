"""Inverse surprising popularity: the published example, the formula as it is printed, and little data."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import combinations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.aggregator.scores.agreement import Agreement, Pair
from services.aggregator.strategies import Ballot, StrategyContext
from services.aggregator.strategies.votes.isp import isp
from services.aggregator.strategies.votes.majority import majority
from services.aggregator.tests.strategies.independent_agents import QUESTIONS, agreement_of_independent


def printed_advantages(
    answers: Mapping[str, str], agreement: Mapping[Pair, Agreement], options: str
) -> dict[str, float]:
    """`Adv(s)` summed literally as in the paper, with P from agreement rates."""
    k, n = len(options), len(answers)

    def given(i: str, s: str, j: str, a: str) -> float:
        pair = agreement[frozenset((i, j))]
        p = pair.agreed / pair.both
        return p if s == a else (1 - p) / (k - 1)

    def surprise(s: str, i: str) -> float:
        return sum(
            given(i, s, j, a) / (k - 1) for j in answers if j != i for a in options if a != answers[j]
        ) / (n - 1)

    return {s: sum((answers[i] == s) - surprise(s, i) for i in answers) for s in options}


def test_the_published_example_has_its_advantages() -> None:
    accuracies = {"w": 0.9, "x": 0.8, "y": 0.6, "z": 0.6}
    answers = {"w": "A", "x": "A", "y": "B", "z": "B"}
    agreement = agreement_of_independent(accuracies, options=4)

    advantages = printed_advantages(answers, agreement, "ABCD")
    decision = isp(
        [Ballot(agent, answer, answer) for agent, answer in answers.items()],
        StrategyContext(seed="r", options=4, agreement=agreement),
    )

    assert list(advantages.values()) == pytest.approx([1.1768, 1.0840, -1.1304, -1.1304], abs=5e-5)
    assert decision.answer == "A", "the tie of majority goes to those that agree more with all"
    assert decision.tie is False
    unanswered = advantages["C"]
    assert decision.scores == pytest.approx({"A": 1.1768 - unanswered, "B": 1.0840 - unanswered}, abs=1e-4)


@given(st.lists(st.sampled_from("ABCDE"), min_size=2, max_size=6), st.data())
def test_the_scores_are_the_printed_advantages_less_a_constant(
    given_answers: list[str], data: st.DataObject
) -> None:
    answers = {f"agent-{i}": answer for i, answer in enumerate(given_answers)}
    rates = st.integers(0, QUESTIONS)
    agreement = {
        frozenset(pair): Agreement(agreed=data.draw(rates), both=QUESTIONS)
        for pair in combinations(answers, 2)
    }

    advantages = printed_advantages(answers, agreement, "ABCDEF")
    scores = isp(
        [Ballot(agent, answer, answer) for agent, answer in answers.items()],
        StrategyContext(seed="r", options=6, agreement=agreement),
    ).scores

    for answer, score in scores.items():
        assert score == pytest.approx(advantages[answer] - advantages["F"], abs=1e-6)


@given(
    st.lists(st.one_of(st.none(), st.sampled_from("ABCD")), max_size=7),
    st.one_of(st.none(), st.integers(2, 26)),
)
def test_without_any_agreement_the_decision_is_the_majority_s(
    answers: list[str | None], options: int | None
) -> None:
    ballots = [Ballot(f"agent-{i}", "", answer) for i, answer in enumerate(answers)]
    context = StrategyContext(seed="r", options=options)

    assert isp(ballots, context)._replace(strategy="majority") == majority(ballots, context)


def test_who_abstains_is_not_among_the_others() -> None:
    agreement = agreement_of_independent({"x": 0.9, "y": 0.9, "z": 0.3}, options=4)
    context = StrategyContext(seed="r", options=4, agreement=agreement)

    with_z = isp([Ballot("x", "", "A"), Ballot("y", "", "B"), Ballot("z", "", None)], context)
    without_z = isp([Ballot("x", "", "A"), Ballot("y", "", "B")], context)

    assert with_z.scores == without_z.scores
    assert with_z.abstained == ("z",)
