"""Ordered concatenation: all texts, one after another, for answers that complete rather than rival."""

from __future__ import annotations

from collections.abc import Sequence

from schemas.replies import Decision
from services.aggregator.strategies.ballot import Ballot, StrategyContext
from services.aggregator.strategies.tally import votes

BETWEEN = "\n\n"


def concat(ballots: Sequence[Ballot], _context: StrategyContext) -> Decision:
    """The texts in the order of the ballots, with an empty line between; nobody's answer wins.

    Blank texts are left out. Nothing is voted on, so `answer` is None and there are no scores; each agent
    whose text is in weighs 1.
    """
    said = [ballot for ballot in ballots if ballot.text.strip()]
    weights = {ballot.agent: 1.0 if ballot.text.strip() else 0.0 for ballot in ballots}
    return Decision(
        strategy="concat",
        text=BETWEEN.join(ballot.text.strip() for ballot in said) or None,
        share=1.0 if said else 0.0,
        margin=0.0,
        tie=False,
        votes=votes(ballots, weights),
        scores={},
        abstained=tuple(ballot.agent for ballot in ballots if not ballot.text.strip()),
    )
