"""Weighted vote with optimal weights (Nitzan and Paroush 1982; Ai et al. 2025, arXiv:2510.01499)."""

from __future__ import annotations

from collections.abc import Sequence

from schemas.replies import Decision
from services.aggregator.strategies.accuracy import smoothed_accuracy
from services.aggregator.strategies.ballot import Ballot, StrategyContext
from services.aggregator.strategies.log_odds import vote_by_accuracy


def weighted(ballots: Sequence[Ballot], context: StrategyContext) -> Decision:
    """Every agent that has an answer votes with the log-odds of its accuracy so far.

    An agent of which nothing is known is taken to be at chance, and its weight is 0: those that have
    shown something decide. If that holds for all that vote, as in a new mesh, all weigh 1 and the
    decision is the majority's. What agents worse than chance do is told in `vote_by_accuracy`.
    """
    options = context.options_for(ballots)
    accuracies = {
        ballot.agent: smoothed_accuracy(context.history_of(ballot.agent), options) for ballot in ballots
    }
    return vote_by_accuracy("weighted", ballots, accuracies, context)
