"""The answer that the members prefer: each pair is compared (LLM-Blender, Jiang et al. 2023,
arXiv:2306.02561).

A member judges the pairs in which its own answer is not, for models prefer what they wrote themselves; of two
members each judges the one pair. Which of the two texts stands first falls by lot for each judge, for models
prefer places too.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from services.aggregator.strategies.ballot import Ballot, StrategyContext, Tally, tally

NOT_COMPARED = "no comparison came in time that could be read: decided as majority"
ONE_ANSWER = "there were no two answers to compare: decided as majority"


def rank(ballots: Sequence[Ballot], context: StrategyContext) -> Tally:
    """The answer with the most comparisons won, as parts of those that it was in; alike answers add up."""
    won = Counter(each.won for each in context.comparisons)
    lost = Counter(each.lost for each in context.comparisons)
    if not context.comparisons:
        alike = {ballot.agent: 1.0 for ballot in ballots}
        differ = len({ballot.answer for ballot in ballots if ballot.answer is not None}) > 1
        return tally("rank", ballots, alike, context.seed, NOT_COMPARED if differ else ONE_ANSWER)
    weights = {
        ballot.agent: won[ballot.agent] / max(1, won[ballot.agent] + lost[ballot.agent]) for ballot in ballots
    }
    return tally("rank", ballots, weights, context.seed)
