"""One answer written from samples of the best agent by itself: the baseline of `synthesize` (Self-MoA, Li et
al. 2025, arXiv:2502.00674)."""

from __future__ import annotations

from collections.abc import Sequence

from services.aggregator.strategies.ballot import Ballot, StrategyContext, Tally
from services.aggregator.strategies.rounds.best_single import WITHOUT_HISTORY, sampled
from services.aggregator.strategies.texts.synthesize import written
from services.aggregator.strategies.votes.majority import majority


def synthesize_samples(ballots: Sequence[Ballot], context: StrategyContext) -> Tally:
    """The text that the best agent wrote from its own answers; as the majority where nobody is best."""
    best = sampled(context.samples)
    if best is None:
        decision = majority(ballots, context)
        return decision._replace(strategy="synthesize_samples", note=WITHOUT_HISTORY)
    own = [ballot for ballot in (*ballots, *context.samples) if ballot.agent == best]
    return written("synthesize_samples", context.own_synthesis, own, context)
