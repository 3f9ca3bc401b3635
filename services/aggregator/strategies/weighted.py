"""Weighted vote with optimal weights (Nitzan and Paroush 1982; Ai et al. 2025, arXiv:2510.01499).

If agents err independently, and all wrong options are equally likely, the option with the greatest
sum of `ln((K-1) x / (1-x))` over the agents that chose it is the most probable one; `x` is an
agent's accuracy and `K` the number of options.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from schemas.replies import Decision
from services.aggregator.history import AgentHistory
from services.aggregator.strategies.ballot import Ballot, StrategyContext
from services.aggregator.strategies.tally import tally

SMOOTHING = 4.0
"""a: how many questions answered at chance are imagined before the real ones.

With 4, one right answer of four options gives an accuracy of 0.4: enough to break a tie, too little
for one lucky agent to outvote the others for long.
"""

LEAST_ACCURACY = 0.01
GREATEST_ACCURACY = 0.99
_NO_WEIGHT = 1e-9


def weighted(ballots: Sequence[Ballot], context: StrategyContext) -> Decision:
    """Every agent that has an answer votes with the log-odds of its accuracy so far.

    An agent of which nothing is known is taken to be at chance, and its weight is 0: those that have
    shown something decide. If that holds for all that vote, as in a new mesh, all weigh 1 and the
    decision is the majority's. An agent worse than chance has a negative weight: on a closed question
    its vote speaks against its answer, and so for the other options. On an open one there is nothing
    that it would speak for, and it weighs 0.
    """
    options = context.options_for(ballots)
    least = 0.0 if context.options is None else -math.inf
    weights = {
        ballot.agent: max(least, log_odds_weight(accuracy_of(ballot.agent, context, options), options))
        for ballot in ballots
        if ballot.answer is not None
    }
    if all(abs(weight) < _NO_WEIGHT for weight in weights.values()):
        weights = dict.fromkeys(weights, 1.0)
    return tally("weighted", ballots, weights, context.seed)


def accuracy_of(agent: str, context: StrategyContext, options: int) -> float:
    """What an agent's accuracy is taken to be."""
    return smoothed_accuracy(context.history_of(agent), options)


def smoothed_accuracy(history: AgentHistory, options: int) -> float:
    """`(correct + a/K) / (asked + a)`, kept away from 0 and 1."""
    accuracy = (history.correct + SMOOTHING / options) / (history.asked + SMOOTHING)
    return min(max(accuracy, LEAST_ACCURACY), GREATEST_ACCURACY)


def log_odds_weight(accuracy: float, options: int) -> float:
    """`ln((K-1) x / (1-x))`: 0 at chance (x = 1/K), greater above it, negative below it."""
    return math.log((options - 1) * accuracy / (1 - accuracy))
