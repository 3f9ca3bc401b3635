"""The mean of what agents hold probable."""

from __future__ import annotations

import pytest

from services.aggregator.scores.history import AgentHistory
from services.aggregator.strategies import Ballot, StrategyContext
from services.aggregator.strategies.rounds.average import WITHOUT_PROBABILITIES, average
from services.aggregator.strategies.votes.majority import majority

SURE = {"A": 0.9, "B": 0.1}
UNSURE = {"A": 0.4, "B": 0.6}
CONTEXT = StrategyContext(seed="r", options=2)


def test_one_sure_agent_outweighs_two_that_are_hardly_inclined() -> None:
    ballots = [
        Ballot("x", "", "A", SURE),
        Ballot("y", "", "B", UNSURE),
        Ballot("z", "", "B", UNSURE),
    ]
    decision = average(ballots, CONTEXT)
    assert majority(ballots, CONTEXT).answer == "B"
    assert decision.answer == "A"
    assert decision.scores == pytest.approx({"A": 1.7 / 3, "B": 1.3 / 3})
    assert decision.share == pytest.approx(1.7 / 3)
    assert decision.margin == pytest.approx(0.4 / 3)
    assert [vote.weight for vote in decision.votes] == pytest.approx([1 / 3] * 3)


def test_agents_weigh_as_much_as_they_were_right() -> None:
    history = {
        "x": AgentHistory(correct=9 * 10**6, asked=10**7),
        "y": AgentHistory(correct=3 * 10**6, asked=10**7),
    }
    context = StrategyContext(seed="r", options=2, history=history)
    decision = average([Ballot("x", "", "A", SURE), Ballot("y", "", "B", UNSURE)], context)
    assert decision.scores["A"] == pytest.approx(0.75 * 0.9 + 0.25 * 0.4, abs=1e-5)


def test_without_logprobs_an_agent_abstains_whatever_it_says() -> None:
    decision = average([Ballot("x", "", "A", SURE), Ballot("y", "", "B")], CONTEXT)
    assert (decision.answer, decision.abstained, decision.note) == ("A", ("y",), None)


def test_if_nobody_has_logprobs_nothing_is_decided_and_that_is_said() -> None:
    decision = average([Ballot("x", "", "A"), Ballot("y", "", "B")], CONTEXT)
    assert (decision.answer, decision.share, decision.note) == (None, 0.0, WITHOUT_PROBABILITIES)
    assert decision.abstained == ("x", "y")


def test_an_option_that_nobody_chose_may_win() -> None:
    torn = [
        Ballot("x", "", "A", {"A": 0.55, "B": 0.0, "C": 0.45}),
        Ballot("y", "", "B", {"A": 0.0, "B": 0.55, "C": 0.45}),
    ]
    decision = average(torn, StrategyContext(seed="r", options=3))
    assert (decision.answer, decision.text) == ("C", "C")
