"""Majority vote (self-consistency; Wang et al. 2022, arXiv:2203.11171): the answer that most agents gave."""

from __future__ import annotations

from collections.abc import Sequence

from services.aggregator.strategies.ballot import Ballot, StrategyContext, Tally, tally


def majority(ballots: Sequence[Ballot], context: StrategyContext) -> Tally:
    """Every agent that has an answer has one vote."""
    return tally("majority", ballots, {ballot.agent: 1.0 for ballot in ballots}, context.seed)
