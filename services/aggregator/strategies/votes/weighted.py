"""Weighted vote with optimal weights (Nitzan and Paroush 1982; Ai et al. 2025, arXiv:2510.01499)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from services.aggregator.strategies.accuracy import smoothed_accuracy
from services.aggregator.strategies.ballot import Ballot, StrategyContext, Tally
from services.aggregator.strategies.log_odds import vote_by_accuracy


def weighted(ballots: Sequence[Ballot], context: StrategyContext) -> Tally:
    """Every agent that has an answer votes with the log-odds of its accuracy so far.

    An agent of which nothing is known is taken to be at chance, and its weight is 0: those that have
    shown something decide. If that holds for all that vote, as in a new mesh, all weigh 1 and the
    decision is the majority's. What agents worse than chance do is told in `vote_by_accuracy`.
    """
    known = overall_accuracies([ballot.agent for ballot in ballots], context.options_for(ballots), context)
    return vote_by_accuracy("weighted", ballots, known, context)


def overall_accuracies(agents: Iterable[str], options: int, context: StrategyContext) -> dict[str, float]:
    """The accuracy of each agent so far, smoothed."""
    return {agent: smoothed_accuracy(context.history_of(agent), options) for agent in agents}
