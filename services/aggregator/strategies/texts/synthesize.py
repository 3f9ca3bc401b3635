"""One answer written from all: a mixture of agents of two layers (Wang et al. 2024, arXiv:2406.04692).

An agent gets the question again with every answer, each quoted, and writes one from them. Beside it stands
`synthesize_samples` at as many answers: mixing different agents is often no better than that (Li et al. 2025,
arXiv:2502.00674).
"""

from __future__ import annotations

from collections.abc import Sequence

from services.aggregator.strategies.ballot import Ballot, StrategyContext, Tally, WeighedVote
from services.aggregator.strategies.votes.majority import majority

NOTHING_TO_JOIN = "fewer than two different texts: there was nothing to put together"
NOT_WRITTEN = "no text was written from the answers in time: decided as majority"


def synthesize(ballots: Sequence[Ballot], context: StrategyContext) -> Tally:
    """The text that was written from the answers; where there is none, that of the majority, and why."""
    return written("synthesize", context.synthesis, ballots, context)


def written(strategy: str, text: Ballot | None, sources: Sequence[Ballot], context: StrategyContext) -> Tally:
    """A decision for a text that was written from others; nobody's answer wins, and each source weighs 1."""
    if text is None or not text.text.strip():
        why = NOTHING_TO_JOIN if len(texts_of(sources)) < 2 else NOT_WRITTEN
        return majority(sources, context)._replace(strategy=strategy, note=why)
    return Tally(
        strategy=strategy,
        answer=None,
        text=text.text,
        share=1.0,
        margin=0.0,
        tie=False,
        votes=tuple(WeighedVote(b.agent, b.answer, float(bool(b.text.strip()))) for b in sources),
        scores={},
        note=f"written by {text.agent} from {len(texts_of(sources))} texts",
    )


def texts_of(ballots: Sequence[Ballot]) -> tuple[str, ...]:
    """The different texts, in the order of the ballots."""
    return tuple(dict.fromkeys(text for ballot in ballots if (text := ballot.text.strip())))
