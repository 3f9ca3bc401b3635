"""The strategies that only re-aggregation can use: there, honest about it, and not open to requests."""

from __future__ import annotations

import pytest

from schemas.errors import UnknownStrategy
from schemas.strategies import STRATEGIES
from services.aggregator import strategies
from services.aggregator.strategies import Ballot, Strategy, StrategyContext


@pytest.mark.parametrize(("name", "strategy"), strategies.OFFLINE.items())
def test_each_signs_its_decisions_and_decides_alike_every_time(name: str, strategy: Strategy) -> None:
    ballots = [Ballot("x", "18", "18"), Ballot("y", "17", "17"), Ballot("z", "?", None)]
    context = StrategyContext(seed="r")

    decision = strategy(ballots, context)

    assert decision.strategy == name
    assert decision.tie is True
    assert decision == strategy(ballots, context)


@pytest.mark.parametrize("strategy", strategies.OFFLINE.values(), ids=strategies.OFFLINE)
def test_without_ballots_nothing_is_decided(strategy: Strategy) -> None:
    decision = strategy([], StrategyContext(seed="r", options=4))
    assert (decision.answer, decision.share, decision.votes) == (None, 0.0, ())


@pytest.mark.parametrize("name", strategies.OFFLINE)
def test_a_request_that_names_one_is_refused(name: str) -> None:
    assert name not in STRATEGIES
    with pytest.raises(UnknownStrategy):
        strategies.get(name)
