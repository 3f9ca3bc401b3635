"""Whether a decision is settled: nothing that the members who are left could say would change it. Pure.

For a vote of one of N it is the rule of every count: the leader stands if its lead is more than the votes
that are left, or as many and the lot of a tie would be its own. (Adaptive-Consistency, Aggarwal et al. 2023,
arXiv:2305.11860, and ESC, Li et al. 2024, arXiv:2401.10480, stop samples of one model earlier, where a
change is improbable: that is `likely.py`.) Here the rule is that of any sum: the worst that those who are
left can do to the leader's lead over a rival is the sum of the worst that each of them can do.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from services.aggregator.effort.scoring import UNSEEN, Scoring, Standing, scorings
from services.aggregator.strategies.ballot import StrategyContext, tie_break

SURE = 1e-6
"""A lead of more than this is no tie, whatever is lost in rounding."""
ROUNDING = 1e-10
"""A lead that is short of 0 by less is a tie."""


def settled(strategy: str, leader: str | None, standing: Standing, context: StrategyContext) -> bool:
    """Whether `strategy` would decide for `leader` whatever those who are left say, or whether they say it.

    `leader` is what it decides from the ballots that there are. False also where that cannot be told.
    """
    if not standing.at_most:
        return True
    if leader is None:
        return False
    ways = scorings(strategy, standing, context)
    return ways is not None and all(_holds(way, leader, standing, context.seed) for way in ways)


def lead(way: Scoring, leader: str, rival: str, votes: Sequence[tuple[str, str]]) -> float:
    """By how much the leader's score is greater than the rival's."""
    return math.fsum(way.gain(agent, said, leader) - way.gain(agent, said, rival) for agent, said in votes)


def wins_tie(leader: str, rival: str, seed: str) -> bool:
    """Whether the lot of a tie between them is the leader's; not known of an answer that nobody has given."""
    return rival != UNSEEN and tie_break(seed, leader) < tie_break(seed, rival)


def _holds(way: Scoring, leader: str, standing: Standing, seed: str) -> bool:
    for rival in way.candidates:
        if rival == leader:
            continue
        losses = sorted((_worst(way, agent, leader, rival) for agent in way.voters), reverse=True)
        least = lead(way, leader, rival, standing.votes) - math.fsum(losses[: way.at_most])
        if least <= SURE and not (least >= -ROUNDING and wins_tie(leader, rival, seed)):
            return False
    return True


def _worst(way: Scoring, agent: str, leader: str, rival: str) -> float:
    """How much of its lead the leader loses, at most, by an agent's vote; nothing if it abstains."""
    return max(
        0.0,
        *(way.gain(agent, said, rival) - way.gain(agent, said, leader) for said in way.candidates),
    )
