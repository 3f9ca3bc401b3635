"""Debate (Du et al. 2023, arXiv:2305.14325): the agents answer again, knowing one another's answers.

Where round one was unanimous there is no second: N answers instead of 2N. At the same number of tokens
self-consistency (`best_single`) does as well or better on sums (Huang et al. 2023, arXiv:2310.01798), so the
two are to be looked at side by side.
"""

from __future__ import annotations

from collections.abc import Sequence

from services.aggregator.strategies.ballot import Ballot, StrategyContext, Tally, tally

UNANIMOUS = "round one was unanimous: there was no second"
ONE_ANSWER = "one answer could be read in round one, so there was nothing to debate: there was no second"
NO_ANSWER = "no answer could be read in round one, so there was nothing to debate: there was no second"
NO_SECOND_ROUND = "no second answer came in time that could be read: decided from round one"


def debate(ballots: Sequence[Ballot], context: StrategyContext) -> Tally:
    """The majority of the last answer of each agent that could be read.

    A member without such a second answer keeps its first one; the note names these members.
    """
    weights = {ballot.agent: 1.0 for ballot in ballots}
    if unanimous(ballots):
        readable = sum(ballot.answer is not None for ballot in ballots)
        why = (NO_ANSWER, ONE_ANSWER)[readable] if readable < 2 else UNANIMOUS
        return tally("debate", ballots, weights, context.seed, why)
    second = {ballot.agent: ballot for ballot in context.second_round or () if ballot.answer is not None}
    if not second:
        return tally("debate", ballots, weights, context.seed, NO_SECOND_ROUND)
    silent = [ballot.agent for ballot in ballots if ballot.agent not in second]
    note = f"no second answer of {', '.join(sorted(silent))}: the first one counts" if silent else None
    return tally("debate", [second.get(b.agent, b) for b in ballots], weights, context.seed, note)


def unanimous(ballots: Sequence[Ballot]) -> bool:
    """Whether there is nothing to debate: no two answers that could be read differ."""
    return len({ballot.answer for ballot in ballots if ballot.answer is not None}) < 2
