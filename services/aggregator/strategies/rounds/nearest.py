"""The answer that agrees most with the others in meaning: universal self-consistency (Chen et al. 2023,
arXiv:2311.17311) by vectors, where they let a model read all answers and say which agrees most.

How near two texts are is the cosine of the angle between their vectors, which one model makes of all of them.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from services.aggregator.strategies.ballot import Ballot, StrategyContext, Tally, choose, votes
from services.aggregator.strategies.votes.majority import majority

NO_VECTORS = "fewer than two vectors came in time: decided as majority"
ONE_TEXT = "there were no two different texts: decided as majority"


def nearest(ballots: Sequence[Ballot], context: StrategyContext) -> Tally:
    """The answer with the greatest mean nearness to what the other agents said, from 0 to 1.

    Of alike answers each has the others among those, so they need no sum. Angles beyond a right one count
    as that. Who has no vector weighs 0.
    """
    placed = {b.agent: context.vectors[b.agent] for b in ballots if b.agent in context.vectors}
    if len(placed) < 2:
        why = NO_VECTORS if len({ballot.text.strip() for ballot in ballots}) > 1 else ONE_TEXT
        return majority(ballots, context)._replace(strategy="nearest", note=why)
    weights = dict.fromkeys((ballot.agent for ballot in ballots), 0.0)
    for agent, own in placed.items():
        weights[agent] = math.fsum(
            max(0.0, cosine(own, theirs)) for other, theirs in placed.items() if other != agent
        ) / (len(placed) - 1)
    cast = votes(ballots, weights)
    scores: dict[str, float] = {}
    for vote in cast:
        if vote.answer is not None:
            scores[vote.answer] = max(scores.get(vote.answer, 0.0), vote.weight)
    return choose("nearest", ballots, cast, scores, math.fsum(scores.values()), context.seed)


def cosine(one: Sequence[float], other: Sequence[float]) -> float:
    """That of the angle between two vectors; 0 where one has no length, or they are of different ones."""
    if len(one) != len(other):
        return 0.0
    along = math.fsum(a * b for a, b in zip(one, other, strict=True))
    lengths = math.hypot(*one) * math.hypot(*other)
    return along / lengths if lengths else 0.0
