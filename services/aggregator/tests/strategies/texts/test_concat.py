"""Texts one after another."""

from __future__ import annotations

from services.aggregator.strategies import Ballot, StrategyContext
from services.aggregator.strategies.texts.concat import concat


def test_texts_stand_in_the_order_of_the_members_and_blank_ones_are_left_out() -> None:
    ballots = [Ballot("x", "First part.\n", None), Ballot("y", "  ", None), Ballot("z", "Second part.", None)]
    decision = concat(ballots, StrategyContext(seed="r"))
    assert decision.text == "First part.\n\nSecond part."
    assert (decision.answer, decision.scores, decision.tie) == (None, {}, False)
    assert [vote.weight for vote in decision.votes] == [1.0, 0.0, 1.0]
    assert decision.abstained == ("y",)
