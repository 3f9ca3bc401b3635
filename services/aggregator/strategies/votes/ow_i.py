"""Optimal weights (Ai et al. 2025, arXiv:2510.01499) where what isp chose stands for what was right."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from services.aggregator.strategies.accuracy import smoothed_accuracy
from services.aggregator.strategies.ballot import Ballot, StrategyContext, Tally
from services.aggregator.strategies.log_odds import vote_by_accuracy


def ow_i(ballots: Sequence[Ballot], context: StrategyContext) -> Tally:
    """Every agent that has an answer votes with the log-odds of how often it gave the answer that isp chose.

    Smoothed as the accuracies of `weighted` are. Without any such history the decision is the majority's.
    """
    known = isp_accuracies([ballot.agent for ballot in ballots], context.options_for(ballots), context)
    return vote_by_accuracy("ow_i", ballots, known, context)


def isp_accuracies(agents: Iterable[str], options: int, context: StrategyContext) -> dict[str, float]:
    """How often each agent gave the answer that isp chose, smoothed."""
    return {agent: smoothed_accuracy(context.isp_history_of(agent), options) for agent in agents}
