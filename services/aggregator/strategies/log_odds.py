"""From accuracies to a vote: the part that all strategies with optimal weights share.

If agents err independently, and all wrong options are equally likely, the option with the greatest
sum of `ln((K-1) x / (1-x))` over the agents that chose it is the most probable one; `x` is an
agent's accuracy and `K` the number of options (Nitzan and Paroush 1982; Ai et al. 2025, arXiv:2510.01499).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from services.aggregator.strategies.ballot import Ballot, StrategyContext, Tally, tally

LEAST_ACCURACY = 0.01
GREATEST_ACCURACY = 0.99
_NO_WEIGHT = 1e-9


def vote_by_accuracy(
    strategy: str, ballots: Sequence[Ballot], accuracies: Mapping[str, float], context: StrategyContext
) -> Tally:
    """Every agent that has an answer votes with the log-odds of its accuracy; `accuracies` has each of them.

    If all weigh 0, because nothing is known of any of them, all weigh 1: the decision is the majority's.
    An agent worse than chance has a negative weight: on a closed question its vote speaks against its
    answer, and so for the other options. On an open one there is nothing that it would speak for, and
    it weighs 0.
    """
    voters = [ballot.agent for ballot in ballots if ballot.answer is not None]
    options = context.options_for(ballots)
    weights = log_odds_weights({agent: accuracies[agent] for agent in voters}, options, context)
    if all(weighs_nothing(weight) for weight in weights.values()):
        weights = dict.fromkeys(weights, 1.0)
    return tally(strategy, ballots, weights, context.seed)


def log_odds_weights(
    accuracies: Mapping[str, float], options: int, context: StrategyContext
) -> dict[str, float]:
    """The weight of each agent: see `vote_by_accuracy`."""
    least = 0.0 if context.options is None else -math.inf
    return {agent: max(least, log_odds_weight(x, options)) for agent, x in accuracies.items()}


def weighs_nothing(weight: float) -> bool:
    """Whether a weight is 0 but for rounding."""
    return abs(weight) < _NO_WEIGHT


def log_odds_weight(accuracy: float, options: int) -> float:
    """`ln((K-1) x / (1-x))`: 0 at chance (x = 1/K), greater above it, negative below it."""
    return math.log((options - 1) * accuracy / (1 - accuracy))


def never_certain(accuracy: float) -> float:
    """The accuracy, kept away from 0 and 1, where the log-odds have no end."""
    if accuracy < LEAST_ACCURACY:
        return LEAST_ACCURACY
    return GREATEST_ACCURACY if accuracy > GREATEST_ACCURACY else accuracy
