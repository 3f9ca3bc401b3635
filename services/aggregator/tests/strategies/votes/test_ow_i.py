"""Optimal weights where isp's decisions stand for right answers."""

from __future__ import annotations

import random

import pytest

from services.aggregator.decide import Question, context_of
from services.aggregator.scores.history import AgentHistory, History
from services.aggregator.scores.learning import learn_answers
from services.aggregator.strategies import Ballot, StrategyContext
from services.aggregator.strategies.votes.ow_i import ow_i


def test_who_has_agreed_with_isp_more_often_weighs_more() -> None:
    known = {
        "x": AgentHistory(correct=9 * 10**6, asked=10**7),
        "y": AgentHistory(correct=6 * 10**6, asked=10**7),
        "z": AgentHistory(correct=6 * 10**6, asked=10**7),
    }
    ballots = [Ballot("x", "", "A"), Ballot("y", "", "B"), Ballot("z", "", "B")]

    decision = ow_i(ballots, StrategyContext(seed="r", options=4, isp_history=known))

    assert decision.answer == "A"
    assert [vote.weight for vote in decision.votes] == pytest.approx([3.296, 1.504, 1.504], abs=1e-3)


def test_accuracies_are_learnt_without_right_answers() -> None:
    """Five agents that err independently: who is better is found from isp's decisions alone."""
    accuracies = {"v": 0.9, "w": 0.75, "x": 0.6, "y": 0.45, "z": 0.3}
    chance, history = random.Random(3), History()
    for number in range(800):
        right = chance.choice("ABCD")
        ballots = [
            Ballot(
                agent, "", right if chance.random() < accuracy else chance.choice("ABCD".replace(right, ""))
            )
            for agent, accuracy in accuracies.items()
        ]
        learn_answers(history, ballots, Question(str(number), 4))

    context = context_of(Question("q", 4), history)
    weights = [vote.weight for vote in ow_i([Ballot(agent, "", "A") for agent in accuracies], context).votes]

    assert weights == sorted(weights, reverse=True)
    assert context.isp_history["v"].asked == 800
