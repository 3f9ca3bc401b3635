"""Optimal weights (Ai et al. 2025, arXiv:2510.01499) where what isp chose stands for what was right."""

from __future__ import annotations

from collections.abc import Sequence

from schemas.replies import Decision
from services.aggregator.strategies.accuracy import smoothed_accuracy
from services.aggregator.strategies.ballot import Ballot, StrategyContext
from services.aggregator.strategies.log_odds import vote_by_accuracy


def ow_i(ballots: Sequence[Ballot], context: StrategyContext) -> Decision:
    """Every agent that has an answer votes with the log-odds of how often it gave the answer that isp chose.

    Smoothed as the accuracies of `weighted` are. Without any such history the decision is the majority's.
    """
    options = context.options_for(ballots)
    accuracies = {
        ballot.agent: smoothed_accuracy(context.isp_history_of(ballot.agent), options) for ballot in ballots
    }
    return vote_by_accuracy("ow_i", ballots, accuracies, context)
