"""Inverse surprising popularity (Ai et al. 2025, arXiv:2510.01499): agreement that was not to be expected.

With `P(A_i=s | A_j=a)` the probability that agent i answers s where agent j answers a, N agents and
K options, an answer's advantage is its votes less those it would get by what the others' answers
foretell when they are *not* the ones that were given:

    S(s, i) = 1/(N-1) sum_{j != i} 1/(K-1) sum_{a != a_j} P(A_i=s | A_j=a)
    Adv(s)  = sum_i 1{a_i = s} - sum_i S(s, i)

The letter of an option means nothing, so P is estimated as if the options of every question had been
shuffled in all possible ways: `p_ij`, the agreement rate, where s = a, and `(1 - p_ij)/(K-1)` elsewhere.
With that P the advantages are, less a constant that all answers share, the scores of a vote with weights

    w_j = 1 + sum_{i != j} (K p_ij - 1) / ((N-1) (K-1)^2)

No right answers are needed. With few agents the weights are close to 1 and mostly break ties.
"""

from __future__ import annotations

from collections.abc import Sequence

from services.aggregator.strategies.ballot import Ballot, StrategyContext, Tally, tally


def isp(ballots: Sequence[Ballot], context: StrategyContext) -> Tally:
    """Every agent that has an answer votes the more, the more it has agreed with the others that have one.

    N counts the agents that have an answer. Two that never met are taken to agree as by chance; where
    that holds for all, and for an agent alone, all weigh 1 and the decision is the majority's.
    """
    options = context.options_for(ballots)
    voters = [ballot.agent for ballot in ballots if ballot.answer is not None]
    return tally("isp", ballots, isp_weights(voters, options, context), context.seed)


def isp_weights(voters: Sequence[str], options: int, context: StrategyContext) -> dict[str, float]:
    """The weight of each agent that votes, where these do."""
    return {agent: _weight(agent, voters, options, context) for agent in voters}


def _weight(agent: str, voters: Sequence[str], options: int, context: StrategyContext) -> float:
    """`w_j`; `beyond_chance` is `(K p_ij - 1)/(K-1)`."""
    others = [context.agreement_of(agent, voter) for voter in voters if voter != agent]
    if not others:
        return 1.0
    beyond = sum([each.beyond_chance(options) for each in others])
    return 1.0 + beyond / (len(others) * (options - 1))
