"""Linear opinion pool (Stone 1961): the weighted mean of what agents hold probable, for closed questions."""

from __future__ import annotations

import math
from collections.abc import Sequence

from services.aggregator.strategies.accuracy import smoothed_accuracy
from services.aggregator.strategies.ballot import Ballot, StrategyContext, Tally, choose, votes

WITHOUT_PROBABILITIES = "no agent has said how probable the options are: its backend gives no logprobs"


def average(ballots: Sequence[Ballot], context: StrategyContext) -> Tally:
    """The option with the greatest mean probability, each agent weighted by its smoothed accuracy.

    The weights of all agents that take part add up to 1, and so do the scores. An agent of whose answer no
    probabilities could be read abstains, whatever it says; if that holds for all, nothing is decided.
    """
    options = context.options_for(ballots)
    accuracies = {
        ballot.agent: smoothed_accuracy(context.history_of(ballot.agent), options)
        for ballot in ballots
        if ballot.probabilities
    }
    total = math.fsum(accuracies.values())
    weights = {agent: accuracy / total for agent, accuracy in accuracies.items()}
    pooled = [
        _without_answer(ballot) if ballot.agent not in weights else _most_probable(ballot)
        for ballot in ballots
    ]
    letters = {letter for ballot in pooled for letter in ballot.probabilities}
    scores = {
        letter: math.fsum(
            weights[b.agent] * b.probabilities.get(letter, 0.0) for b in pooled if b.probabilities
        )
        for letter in letters
    }
    note = None if weights else WITHOUT_PROBABILITIES
    return choose(
        "average", pooled, votes(pooled, weights), scores, math.fsum(scores.values()), context.seed, note
    )


def _without_answer(ballot: Ballot) -> Ballot:
    return Ballot(ballot.agent, ballot.text, None)


def _most_probable(ballot: Ballot) -> Ballot:
    """The ballot as a vote for what its agent holds most probable, which its text may not say."""
    best = max(sorted(ballot.probabilities), key=lambda letter: ballot.probabilities[letter])
    return Ballot(ballot.agent, ballot.text, best, ballot.probabilities)
