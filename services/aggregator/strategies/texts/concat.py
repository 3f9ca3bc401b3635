"""Ordered concatenation: all texts, one after another, for answers that complete rather than rival."""

from __future__ import annotations

from collections.abc import Sequence

from services.aggregator.strategies.ballot import Ballot, StrategyContext, Tally, WeighedVote

BETWEEN = "\n\n"


def concat(ballots: Sequence[Ballot], _context: StrategyContext) -> Tally:
    """The texts in the order of the ballots, with an empty line between; nobody's answer wins.

    Blank texts are left out. Nothing is voted on, so `answer` is None and there are no scores; each agent
    whose text is in weighs 1.
    """
    said = [ballot for ballot in ballots if ballot.text.strip()]
    return Tally(
        strategy="concat",
        answer=None,
        text=BETWEEN.join(ballot.text.strip() for ballot in said) or None,
        share=1.0 if said else 0.0,
        margin=0.0,
        tie=False,
        votes=tuple(WeighedVote(b.agent, b.answer, float(b in said)) for b in ballots),
        scores={},
        abstained=tuple(ballot.agent for ballot in ballots if not ballot.text.strip()),
    )
