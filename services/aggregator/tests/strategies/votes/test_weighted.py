"""Weighted vote: the published example, smoothing, and agents at and below chance."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.aggregator.scores.history import AgentHistory
from services.aggregator.strategies import Ballot, StrategyContext
from services.aggregator.strategies.accuracy import smoothed_accuracy
from services.aggregator.strategies.log_odds import log_odds_weight
from services.aggregator.strategies.votes.majority import majority
from services.aggregator.strategies.votes.weighted import weighted

MANY = 10**7


def known(**accuracies: float) -> dict[str, AgentHistory]:
    """Histories so long that smoothing hardly matters."""
    return {agent: AgentHistory(correct=round(x * MANY), asked=MANY) for agent, x in accuracies.items()}


def cast(**answers: str | None) -> list[Ballot]:
    return [Ballot(agent, f"{agent} says {answer}", answer) for agent, answer in answers.items()]


@pytest.mark.parametrize(("accuracy", "weight"), [(0.9, 3.296), (0.6, 1.504), (0.25, 0.0), (0.1, -1.099)])
def test_weights_are_the_log_odds_of_the_accuracy(accuracy: float, weight: float) -> None:
    assert log_odds_weight(accuracy, options=4) == pytest.approx(weight, abs=5e-4)


def test_one_good_agent_outvotes_two_that_are_mediocre() -> None:
    context = StrategyContext(seed="r", options=4, history=known(x=0.9, y=0.6, z=0.6))
    ballots = cast(x="A", y="B", z="B")

    decision = weighted(ballots, context)

    assert majority(ballots, context).answer == "B"
    assert decision.answer == "A"
    assert decision.text == "x says A"
    assert [vote.weight for vote in decision.votes] == pytest.approx([3.296, 1.504, 1.504], abs=1e-3)
    assert decision.scores == pytest.approx({"A": 3.296, "B": 3.008}, abs=1e-3)
    assert decision.share == pytest.approx(3.296 / 6.304, abs=1e-3)
    assert decision.margin == pytest.approx((3.296 - 3.008) / 6.304, abs=1e-3)


def test_the_text_is_that_of_the_weightiest_agent_with_the_winning_answer() -> None:
    context = StrategyContext(seed="r", options=4, history=known(x=0.6, y=0.9))
    assert weighted(cast(x="A", y="A"), context).text == "y says A"


@given(
    st.lists(st.one_of(st.none(), st.sampled_from("ABCD")), max_size=9),
    st.one_of(st.none(), st.integers(2, 26)),
    st.text(max_size=8),
)
def test_without_any_history_the_decision_is_the_majority_s(
    answers: list[str | None], options: int | None, seed: str
) -> None:
    ballots = [Ballot(f"agent-{i}", "", answer) for i, answer in enumerate(answers)]
    context = StrategyContext(seed=seed, options=options)

    assert weighted(ballots, context)._replace(strategy="majority") == majority(ballots, context)


def test_if_those_with_a_history_abstain_the_others_weigh_alike() -> None:
    context = StrategyContext(seed="r", options=4, history=known(x=0.9))
    decision = weighted(cast(x=None, y="A", z="B", w="B"), context)

    assert decision.answer == "B"
    assert [vote.weight for vote in decision.votes] == [0.0, 1.0, 1.0, 1.0]


def test_agents_with_a_history_decide_before_those_without() -> None:
    context = StrategyContext(seed="r", options=4, history={"x": AgentHistory(correct=1, asked=1)})
    decision = weighted(cast(x="A", y="B", z="B"), context)

    assert decision.answer == "A"
    assert decision.share == pytest.approx(1.0)


def test_the_vote_of_an_agent_worse_than_chance_speaks_against_its_answer() -> None:
    context = StrategyContext(seed="r", options=4, history=known(x=0.5, y=0.05, z=0.05))
    decision = weighted(cast(x="A", y="B", z="B"), context)

    assert decision.answer == "A"
    assert decision.scores["B"] < 0 < decision.scores["A"]
    assert 0 < decision.share < 1
    assert decision.margin == pytest.approx(1.0)


def test_if_all_are_worse_than_chance_the_least_doubted_answer_wins_without_a_share() -> None:
    context = StrategyContext(seed="r", options=4, history=known(x=0.2, y=0.05))
    decision = weighted(cast(x="A", y="B"), context)

    assert decision.answer == "A"
    assert decision.share == 0.0
    assert decision.margin > 0


def test_weights_that_differ_only_by_rounding_are_a_tie() -> None:
    context = StrategyContext(seed="r", options=3, history=known(x=0.7, y=0.7, z=0.8, w=0.8))
    assert weighted(cast(x="A", z="A", w="B", y="B"), context).tie is True


@pytest.mark.parametrize(
    ("correct", "asked", "options", "accuracy"),
    [(0, 0, 4, 0.25), (1, 1, 4, 0.4), (0, 1, 4, 0.2), (0, 0, 2, 0.5), (500, 500, 4, 0.99), (0, 500, 4, 0.01)],
)
def test_accuracy_is_smoothed_towards_chance_and_never_certain(
    correct: int, asked: int, options: int, accuracy: float
) -> None:
    history = AgentHistory(correct=correct, asked=asked)
    assert smoothed_accuracy(history, options) == pytest.approx(accuracy)


def test_an_open_question_has_room_for_an_answer_of_everybody_and_the_right_one() -> None:
    context = StrategyContext(seed="r", history=known(x=0.75, y=0.75, z=0.75))

    decision = weighted(cast(x="18", y="18", z="17"), context)

    assert decision.votes[0].weight == pytest.approx(log_odds_weight(0.75, 4), abs=1e-3)


def test_on_an_open_question_poor_agents_that_agree_do_not_speak_against_their_answer() -> None:
    context = StrategyContext(seed="r", history=known(x=0.4, y=0.3, z=0.02))

    decision = weighted(cast(x="Paris", y="Paris", z="Paris"), context)

    assert decision.answer == "Paris"
    assert decision.share == pytest.approx(1.0)
    assert decision.votes[2].weight == 0.0


@given(
    st.lists(
        st.tuples(st.one_of(st.none(), st.sampled_from("ABC")), st.integers(0, 50), st.integers(0, 50)),
        max_size=8,
    )
)
def test_shares_and_margins_are_parts_of_all_weight(agents: list[tuple[str | None, int, int]]) -> None:
    ballots = [Ballot(f"agent-{i}", "", answer) for i, (answer, _, _) in enumerate(agents)]
    history = {
        f"agent-{i}": AgentHistory(correct=right, asked=right + wrong)
        for i, (_, right, wrong) in enumerate(agents)
    }
    decision = weighted(ballots, StrategyContext(seed="r", options=4, history=history))

    assert 0 <= decision.share <= 1 + 1e-9
    assert 0 <= decision.margin <= 1 + 1e-9
    assert sum(decision.scores.values()) == pytest.approx(sum(vote.weight for vote in decision.votes))
