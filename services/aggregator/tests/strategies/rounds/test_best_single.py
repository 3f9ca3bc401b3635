"""The best agent alone: who is chosen, k samples, and what happens when it says nothing."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.aggregator.scores.history import AgentHistory
from services.aggregator.strategies import Ballot, StrategyContext
from services.aggregator.strategies.rounds.best_single import WITHOUT_HISTORY, best_single
from services.aggregator.strategies.votes.majority import majority

HISTORY = {"x": AgentHistory(correct=9, asked=10), "y": AgentHistory(correct=6, asked=10)}
CONTEXT = StrategyContext(seed="r", options=4, history=HISTORY)


def test_the_best_agent_decides_alone() -> None:
    decision = best_single(
        [Ballot("y", "", "B"), Ballot("x", "It is A.", "A"), Ballot("z", "", "B")], CONTEXT
    )

    assert (decision.answer, decision.text, decision.share) == ("A", "It is A.", 1.0)
    assert [vote.agent for vote in decision.votes] == ["x"]


def test_its_samples_vote_among_themselves() -> None:
    samples = [Ballot("x", "", answer) for answer in ("A", "C", "C")]

    decision = best_single([*samples, Ballot("y", "", "A"), Ballot("y", "", "A")], CONTEXT)

    assert decision.answer == "C"
    assert decision.share == pytest.approx(2 / 3)
    assert len(decision.votes) == 3


def test_where_the_best_agent_abstains_no_other_speaks_for_it() -> None:
    decision = best_single([Ballot("x", "no idea", None), Ballot("y", "", "B")], CONTEXT)

    assert decision.answer is None
    assert decision.abstained == ("x",)


def test_one_lucky_answer_does_not_make_the_best_agent() -> None:
    lucky = StrategyContext(seed="r", options=4, history={**HISTORY, "z": AgentHistory(correct=1, asked=1)})
    assert best_single([Ballot("z", "", "B"), Ballot("x", "", "A")], lucky).answer == "A"


def test_of_equally_good_agents_one_is_chosen_by_lot_whoever_stands_first() -> None:
    chosen = set()
    for seed in "abcdefgh":
        equals = StrategyContext(seed=seed, options=4, history={"x": HISTORY["x"], "y": HISTORY["x"]})
        ballots = [Ballot("y", "", "B"), Ballot("x", "", "A")]
        assert best_single(ballots, equals).answer == best_single(ballots[::-1], equals).answer
        chosen.add(best_single(ballots, equals).answer)
    assert chosen == {"A", "B"}


def test_samples_of_other_rounds_vote_with_the_agent_s_first_answer() -> None:
    samples = (Ballot("x", "", "C"), Ballot("x", "", "C"))
    context = StrategyContext(seed="r", options=4, history=HISTORY, samples=samples)

    decision = best_single([Ballot("x", "", "A"), Ballot("y", "", "B")], context)

    assert decision.answer == "C"
    assert decision.share == pytest.approx(2 / 3)
    assert [(vote.agent, vote.answer) for vote in decision.votes] == [("x", "A"), ("x", "C"), ("x", "C")]


def test_whose_samples_there_are_was_the_best_when_it_was_asked() -> None:
    context = StrategyContext(seed="r", options=4, history=HISTORY, samples=(Ballot("y", "", "B"),))
    assert best_single([Ballot("x", "", "A")], context).answer == "B"


def test_an_agent_without_a_history_is_not_chosen_even_over_one_below_chance() -> None:
    poor = StrategyContext(seed="r", options=4, history={"x": AgentHistory(correct=0, asked=10)})
    assert best_single([Ballot("new", "", "B"), Ballot("x", "", "A")], poor).answer == "A"


@given(st.lists(st.one_of(st.none(), st.sampled_from("ABC")), max_size=6))
def test_without_any_history_the_decision_is_the_majority_s(answers: list[str | None]) -> None:
    ballots = [Ballot(f"agent-{i}", "", answer) for i, answer in enumerate(answers)]
    context = StrategyContext(seed="r")

    decision = best_single(ballots, context)

    assert decision.note == WITHOUT_HISTORY
    assert decision._replace(strategy="majority", note=None) == majority(ballots, context)
