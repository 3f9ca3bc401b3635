"""Votes by accuracy on the topic: shrinkage towards what is known of an agent, and no topic at all."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.aggregator.scores.history import AgentHistory
from services.aggregator.strategies import Ballot, StrategyContext
from services.aggregator.strategies.votes.majority import majority
from services.aggregator.strategies.votes.topic import topic, topic_accuracy
from services.aggregator.strategies.votes.weighted import weighted

histories = st.dictionaries(
    st.sampled_from([f"agent-{i}" for i in range(5)]),
    st.builds(
        lambda right, wrong: AgentHistory(correct=right, asked=right + wrong),
        st.integers(0, 30),
        st.integers(0, 30),
    ),
)
answers = st.lists(st.one_of(st.none(), st.sampled_from("ABC")), max_size=5)


def test_ten_questions_of_the_topic_weigh_as_much_as_all_else() -> None:
    assert topic_accuracy(AgentHistory(correct=9, asked=10), overall=0.5) == pytest.approx(0.70)


def test_an_agent_never_asked_on_the_topic_is_as_good_as_it_is_overall() -> None:
    assert topic_accuracy(AgentHistory(), overall=0.62) == pytest.approx(0.62)


def test_who_knows_the_topic_outvotes_who_knows_the_rest() -> None:
    ballots = [Ballot("chemist", "", "A"), Ballot("poet", "", "B")]
    overall = {
        "chemist": AgentHistory(correct=50, asked=100),
        "poet": AgentHistory(correct=70, asked=100),
    }
    on_chemistry = {
        "chemist": AgentHistory(correct=28, asked=30),
        "poet": AgentHistory(correct=6, asked=30),
    }
    context = StrategyContext(seed="r", options=4, history=overall, topic_history=on_chemistry)

    assert weighted(ballots, context).answer == "B"
    assert topic(ballots, context).answer == "A"


def test_an_agent_that_is_always_right_on_the_topic_is_never_certain() -> None:
    always = {"x": AgentHistory(correct=10**6, asked=10**6)}
    context = StrategyContext(seed="r", options=4, history=always, topic_history=always)
    assert topic([Ballot("x", "", "A")], context).votes[0].weight == pytest.approx(5.694, abs=1e-3)


@given(answers, histories)
def test_without_topic_histories_the_decision_is_that_of_weighted(
    given_answers: list[str | None], history: dict[str, AgentHistory]
) -> None:
    ballots = [Ballot(f"agent-{i}", "", answer) for i, answer in enumerate(given_answers)]
    context = StrategyContext(seed="r", options=3, history=history)

    one, other = topic(ballots, context), weighted(ballots, context)

    assert (one.answer, one.tie, one.abstained) == (other.answer, other.tie, other.abstained)
    assert one.scores == pytest.approx(other.scores)


@given(answers)
def test_without_any_history_the_decision_is_the_majority_s(given_answers: list[str | None]) -> None:
    ballots = [Ballot(f"agent-{i}", "", answer) for i, answer in enumerate(given_answers)]
    context = StrategyContext(seed="r")

    assert topic(ballots, context)._replace(strategy="majority") == majority(ballots, context)
