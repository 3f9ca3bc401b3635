"""The baseline that an ensemble has to beat: the best of its agents alone, sampled several times.

Self-consistency (Wang et al. 2022, arXiv:2203.11171) of one agent, chosen by its accuracy so far.
"""

from __future__ import annotations

from collections.abc import Sequence

from services.aggregator.strategies.accuracy import best_agent
from services.aggregator.strategies.ballot import Ballot, StrategyContext, Tally, tally

WITHOUT_HISTORY = "nobody knows yet which agent is best: decided as majority"


def best_single(ballots: Sequence[Ballot], context: StrategyContext) -> Tally:
    """The majority of the ballots of the best agent, its samples among them; only they are votes.

    k samples of one agent are k ballots in its name. If the best agent abstains on all of them nothing is
    decided. If there is no history at all, all ballots vote and the decision is the majority's.
    """
    agents = {ballot.agent for ballot in (*ballots, *context.samples)}
    best = sampled(context.samples) or best_agent(agents, context, context.options_for(ballots))
    if best is None:
        return tally("best_single", ballots, _alike(ballots), context.seed, WITHOUT_HISTORY)
    own = [ballot for ballot in (*ballots, *context.samples) if ballot.agent == best]
    return tally("best_single", own, _alike(own), context.seed)


def sampled(samples: Sequence[Ballot]) -> str | None:
    """Whose samples these are: who was the best when it was asked."""
    return samples[0].agent if samples else None


def _alike(ballots: Sequence[Ballot]) -> dict[str, float]:
    return {ballot.agent: 1.0 for ballot in ballots}
