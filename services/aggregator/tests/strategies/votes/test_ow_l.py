"""Weights fitted from agreement alone: the worked example, recovery of what is known, and little data."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.aggregator.scores.agreement import Agreement, agreements
from services.aggregator.strategies import Ballot, StrategyContext
from services.aggregator.strategies.votes.majority import majority
from services.aggregator.strategies.votes.ow_l import fit_accuracies, ow_l
from services.aggregator.tests.strategies.independent_agents import QUESTIONS, agreement_of_independent


def test_the_worked_example_gives_the_first_agent_nine_tenths() -> None:
    rates = {"12": 0.74, "13": 0.58, "23": 0.56}
    agreement = {
        frozenset(pair): Agreement(agreed=round(rate * QUESTIONS), both=QUESTIONS)
        for pair, rate in rates.items()
    }

    fitted = fit_accuracies(agreement, options=2)

    assert fitted == pytest.approx({"1": 0.9, "2": 0.8, "3": 0.6}, abs=1e-4)


@given(
    st.lists(st.floats(0.0, 1.0), min_size=3, max_size=7).filter(lambda z: sorted(z)[-3] > 0.2),
    st.integers(2, 8),
)
def test_accuracies_are_recovered_from_the_agreement_of_independent_agents(
    beyond_chance: list[float], options: int
) -> None:
    known = {f"agent-{i}": (1 + (options - 1) * z) / options for i, z in enumerate(beyond_chance)}

    fitted = fit_accuracies(agreement_of_independent(known, options), options)

    assert fitted == pytest.approx(known, abs=1e-3)


def test_an_agent_that_disagrees_with_better_ones_is_found_to_be_worse_than_chance() -> None:
    known = {"x": 0.9, "y": 0.8, "z": 0.7, "contrary": 0.1}
    fitted = fit_accuracies(agreement_of_independent(known, options=2), options=2)
    assert fitted == pytest.approx(known, abs=1e-3)


def test_accuracies_are_found_in_answers_without_labels() -> None:
    known, draw = {"x": 0.9, "y": 0.7, "z": 0.6, "w": 0.4}, random.Random(7)

    def answer(accuracy: float) -> str:
        return "A" if draw.random() < accuracy else draw.choice("BCD")

    questions = [{agent: answer(x) for agent, x in known.items()} for _ in range(4000)]

    assert fit_accuracies(agreements(questions), options=4) == pytest.approx(known, abs=0.04)


def test_one_good_agent_outvotes_two_that_are_mediocre_though_nobody_said_who_was_right() -> None:
    agreement = agreement_of_independent({"x": 0.9, "y": 0.6, "z": 0.6}, options=4)
    ballots = [Ballot("x", "", "A"), Ballot("y", "", "B"), Ballot("z", "", "B")]

    decision = ow_l(ballots, StrategyContext(seed="r", options=4, agreement=agreement))

    assert decision.answer == "A"
    assert [vote.weight for vote in decision.votes] == pytest.approx([3.296, 1.504, 1.504], abs=1e-3)


def test_an_agent_that_has_met_nobody_weighs_nothing() -> None:
    agreement = agreement_of_independent({"x": 0.9, "y": 0.6, "z": 0.6}, options=4)
    ballots = [Ballot("x", "", "A"), Ballot("new", "", "B")]

    decision = ow_l(ballots, StrategyContext(seed="r", options=4, agreement=agreement))

    assert [vote.weight for vote in decision.votes] == pytest.approx([3.296, 0.0], abs=1e-3)


@pytest.mark.parametrize("pairs", [["xy"], ["xy", "yz"], ["xy", "zw"]])
def test_fewer_than_three_that_have_all_met_cannot_be_fitted(pairs: list[str]) -> None:
    agreement = {frozenset(pair): Agreement(agreed=9, both=10) for pair in pairs}
    ballots = [Ballot("x", "", "A"), Ballot("y", "", "B"), Ballot("z", "", "B")]
    context = StrategyContext(seed="r", options=4, agreement=agreement)

    assert fit_accuracies(agreement, options=4) == {}
    assert ow_l(ballots, context)._replace(strategy="majority") == majority(ballots, context)


@given(
    st.lists(st.one_of(st.none(), st.sampled_from("ABCD")), max_size=7),
    st.one_of(st.none(), st.integers(2, 26)),
)
def test_without_any_agreement_the_decision_is_the_majority_s(
    answers: list[str | None], options: int | None
) -> None:
    ballots = [Ballot(f"agent-{i}", "", answer) for i, answer in enumerate(answers)]
    context = StrategyContext(seed="r", options=options)

    assert ow_l(ballots, context)._replace(strategy="majority") == majority(ballots, context)


@given(
    st.dictionaries(
        st.sampled_from([frozenset(pair) for pair in ("ab", "ac", "ad", "bc", "bd", "cd")]),
        st.tuples(st.integers(0, 20), st.integers(0, 20)),
    ),
    st.integers(2, 6),
)
def test_whatever_the_counts_a_fitted_accuracy_is_a_probability(
    counts: dict[frozenset[str], tuple[int, int]], options: int
) -> None:
    agreement = {
        pair: Agreement(agreed=same, both=same + different) for pair, (same, different) in counts.items()
    }
    fitted = fit_accuracies(agreement, options)

    assert all(-1e-12 <= accuracy <= 1 + 1e-12 for accuracy in fitted.values())


def test_agents_that_agree_alike_come_out_alike_to_the_last_digit() -> None:
    """Every pair of a and b with c and d has agreed alike, so a split of two against two is a tie."""
    counts = {"ab": 30, "ac": 35, "ad": 35, "bc": 35, "bd": 35, "cd": 30}
    agreement = {frozenset(pair): Agreement(agreed=agreed, both=61) for pair, agreed in counts.items()}
    fitted = fit_accuracies(agreement, 4)
    assert len(set(fitted.values())) == 1
    ballots = [Ballot(agent, answer, answer) for agent, answer in zip("abcd", "AABB", strict=True)]
    assert ow_l(ballots, StrategyContext(seed="s", options=4, agreement=agreement)).tie
