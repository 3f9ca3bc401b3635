"""Counts votes and chooses among scores: the part that all strategies share."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping, Sequence

from services.aggregator.strategies.ballot import Ballot, Tally, WeighedVote

EQUAL_WITHIN = 1e-9
"""Scores that differ by less are equal but for rounding."""


def tally(
    strategy: str, ballots: Sequence[Ballot], weights: Mapping[str, float], seed: str, note: str | None = None
) -> Tally:
    """The decision for the answer with the greatest sum of weights.

    `weights` has each agent that votes; a negative weight speaks against the agent's answer. The
    shares are parts of all weight cast, `sum |w|`.
    """
    weighed = votes(ballots, weights)
    cast = math.fsum([abs(vote.weight) for vote in weighed])
    return choose(strategy, ballots, weighed, _scores(weighed), cast, seed, note)


def votes(ballots: Sequence[Ballot], weights: Mapping[str, float]) -> tuple[WeighedVote, ...]:
    """The vote of each ballot; who abstains weighs nothing, and need not be in `weights`."""
    return tuple(
        [WeighedVote(b.agent, b.answer, 0.0 if b.answer is None else weights[b.agent]) for b in ballots]
    )


def choose(
    strategy: str,
    ballots: Sequence[Ballot],
    cast_votes: tuple[WeighedVote, ...],
    scores: Mapping[str, float],
    cast: float,
    seed: str,
    note: str | None = None,
) -> Tally:
    """The decision for the answer with the greatest score; none where there are no scores.

    Of `cast`, all that there was to win, the winner's score is `share` and its lead over the next (over 0
    where there is no other) `margin`; neither is less than 0. Scores that are equal but for rounding are a
    tie, which the seed decides, whatever the order of the ballots.
    """
    ranked = dict(sorted(scores.items(), key=lambda item: (-item[1], item[0])))
    first = leaders(ranked)
    alone = first[0] if len(first) == 1 else None
    winner = alone or min(first, key=lambda answer: tie_break(seed, answer), default=None)
    places = [*ranked.values(), 0.0]
    return Tally(
        strategy=strategy,
        answer=winner,
        text=None if winner is None else _text_of(winner, ballots, cast_votes),
        share=0.0 if winner is None else _part(ranked[winner], cast),
        margin=0.0 if alone is None else _part(places[0] - places[1], cast),
        tie=len(first) > 1,
        votes=cast_votes,
        scores=ranked,
        abstained=tuple([vote.agent for vote in cast_votes if vote.answer is None]),
        note=note,
    )


def leaders(scores: Mapping[str, float]) -> list[str]:
    """The answers with the greatest score, equal but for rounding: one of them, or those that lots are
    for.
    """
    best = max(scores.values(), default=0.0)
    return [
        answer
        for answer, score in scores.items()
        if score == best or math.isclose(score, best, rel_tol=EQUAL_WITHIN, abs_tol=EQUAL_WITHIN)
    ]


def _scores(weighed: Sequence[WeighedVote]) -> dict[str, float]:
    """The sum of weights of each answer."""
    weights: dict[str, list[float]] = {}
    for vote in weighed:
        if vote.answer is not None:
            weights.setdefault(vote.answer, []).append(vote.weight)
    return {answer: math.fsum(of_one) for answer, of_one in weights.items()}


def tie_break(seed: str, answer: str) -> bytes:
    """What an answer draws in a tie; the lowest wins."""
    return hashlib.sha256(f"{seed}\n{answer}".encode(errors="surrogatepass")).digest()


def _part(score: float, cast: float) -> float:
    """A score as a part of all weight that was cast."""
    return max(0.0, score / cast) if cast else 0.0


def _text_of(answer: str, ballots: Sequence[Ballot], cast_votes: Sequence[WeighedVote]) -> str:
    """The text of the weightiest vote for `answer`, the first of them if there are several; where nobody
    gave that answer, the answer itself."""
    weightiest, text = -math.inf, answer
    for vote, ballot in zip(cast_votes, ballots, strict=True):
        if vote.answer == answer and vote.weight > weightiest:
            weightiest, text = vote.weight, ballot.text
    return text
