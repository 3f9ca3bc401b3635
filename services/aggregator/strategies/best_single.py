"""The baseline that an ensemble has to beat: the best of its agents alone, sampled several times.

Self-consistency (Wang et al. 2022, arXiv:2203.11171) of one agent, chosen by its accuracy so far.
"""

from __future__ import annotations

from collections.abc import Sequence

from schemas.replies import Decision
from services.aggregator.strategies.ballot import Ballot, StrategyContext
from services.aggregator.strategies.tally import tally
from services.aggregator.strategies.weighted import smoothed_accuracy


def best_single(ballots: Sequence[Ballot], context: StrategyContext) -> Decision:
    """The majority of the ballots of the agent with the greatest smoothed accuracy; only they are votes.

    k samples of one agent are k ballots in its name. Among agents that are equally good the first in the
    order of ballots is chosen, whatever it says: if it abstains on all its ballots nothing is decided.
    Agents without any history are not chosen; if there is no other, all ballots vote and the decision
    is the majority's.
    """
    options = context.options_for(ballots)
    known = [ballot.agent for ballot in ballots if context.history_of(ballot.agent).asked]
    if known:
        best = max(known, key=lambda agent: smoothed_accuracy(context.history_of(agent), options))
        ballots = [ballot for ballot in ballots if ballot.agent == best]
    return tally("best_single", ballots, {ballot.agent: 1.0 for ballot in ballots}, context.seed)
