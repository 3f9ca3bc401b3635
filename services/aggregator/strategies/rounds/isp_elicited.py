"""The surprisingly popular vote (Prelec, Seung and McCoy 2017, Nature 541): more votes than were predicted.

Every agent is asked two things: the question, and which answer most others will give. An answer that more
agents give than were expected to is likely to be right even if few give it: those who know better also know
what the others believe.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence

from services.aggregator.strategies.ballot import (
    EQUAL_WITHIN,
    Ballot,
    StrategyContext,
    Tally,
    choose,
    tally,
    votes,
)

SHARES = "share and margin are of the votes beyond what was predicted"
"""A winner with all votes may have a small share: most of them were foretold."""
NOBODY = "no answer could be read"
UNANIMOUS = "all who voted agree, so there was nothing to weigh: share and margin are of the votes"
NO_SURPRISE = "every answer was given as often as predicted: decided as majority"
WITHOUT_PREDICTIONS = "no agent has predicted what the others answer: decided as majority"


def isp_elicited(ballots: Sequence[Ballot], context: StrategyContext) -> Tally:
    """The answer whose share of the votes exceeds its share of the predictions by most.

    The scores are these differences times the number of votes; only answers that somebody gave can win. An
    agent that predicts nothing that can be read still votes, and the other way round. Where all agree, or
    predictions tell no answer from another, the majority decides, and the note says so.
    """
    given = Counter(ballot.answer for ballot in ballots if ballot.answer is not None)
    predicted = Counter(ballot.predicted for ballot in ballots if ballot.predicted is not None)
    weights = {ballot.agent: 1.0 for ballot in ballots}
    if not predicted:
        return tally("isp_elicited", ballots, weights, context.seed, WITHOUT_PREDICTIONS)
    voters, foretellers = given.total(), predicted.total()
    scores = {answer: count - voters * predicted[answer] / foretellers for answer, count in given.items()}
    if len(scores) < 2:
        note = UNANIMOUS if scores else NOBODY
        return tally("isp_elicited", ballots, weights, context.seed, note)
    if math.isclose(max(scores.values()), min(scores.values()), abs_tol=EQUAL_WITHIN):
        return tally("isp_elicited", ballots, weights, context.seed, NO_SURPRISE)
    return choose(
        "isp_elicited", ballots, votes(ballots, weights), scores, float(voters), context.seed, SHARES
    )
