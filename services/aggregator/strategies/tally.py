"""Counting weighted votes: the part that all voting strategies share."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping, Sequence

from schemas.replies import Decision, Vote
from services.aggregator.strategies.ballot import Ballot

_EQUAL_WITHIN = 1e-9


def tally(strategy: str, ballots: Sequence[Ballot], weights: Mapping[str, float], seed: str) -> Decision:
    """The decision for the answer with the greatest sum of weights.

    `weights` has each agent that votes; a negative weight speaks against the agent's answer. The
    shares are parts of all weight cast, `sum |w|`: the winner's score for `share`, its lead over
    the next (over 0 where there is no other) for `margin`; neither is less than 0. Scores that are
    equal but for rounding are a tie, which the seed decides, whatever the order of the ballots.
    """
    votes = tuple(
        Vote(agent=b.agent, answer=b.answer, weight=0.0 if b.answer is None else weights[b.agent])
        for b in ballots
    )
    scores = _scores(votes)
    abstained = tuple(vote.agent for vote in votes if vote.answer is None)
    if not scores:
        return Decision(
            strategy=strategy, share=0.0, margin=0.0, tie=False, votes=votes, scores={}, abstained=abstained
        )

    best = max(scores.values())
    leaders = [answer for answer, score in scores.items() if _equal(score, best)]
    winner = min(leaders, key=lambda answer: _lot(seed, answer))
    next_best = max((score for answer, score in scores.items() if answer != winner), default=0.0)
    cast = math.fsum(abs(vote.weight) for vote in votes)
    return Decision(
        strategy=strategy,
        answer=winner,
        text=_text_of(winner, ballots, weights),
        share=_part(scores[winner], cast),
        margin=0.0 if len(leaders) > 1 else _part(scores[winner] - next_best, cast),
        tie=len(leaders) > 1,
        votes=votes,
        scores=scores,
        abstained=abstained,
    )


def _scores(votes: Sequence[Vote]) -> dict[str, float]:
    """The sum of weights of each answer, greatest first."""
    answers = {vote.answer for vote in votes if vote.answer is not None}
    sums = {a: math.fsum(vote.weight for vote in votes if vote.answer == a) for a in answers}
    return dict(sorted(sums.items(), key=lambda item: (-item[1], item[0])))


def _equal(one: float, other: float) -> bool:
    return math.isclose(one, other, rel_tol=_EQUAL_WITHIN, abs_tol=_EQUAL_WITHIN)


def _lot(seed: str, answer: str) -> bytes:
    """What an answer draws in a tie; the lowest wins."""
    return hashlib.sha256(f"{seed}\n{answer}".encode(errors="surrogatepass")).digest()


def _part(score: float, cast: float) -> float:
    """A score as a part of all weight that was cast."""
    return max(0.0, score / cast) if cast else 0.0


def _text_of(answer: str, ballots: Sequence[Ballot], weights: Mapping[str, float]) -> str:
    """The text of the weightiest agent that gave `answer`, the first of them if there are several."""
    givers = (ballot for ballot in ballots if ballot.answer == answer)
    return max(givers, key=lambda ballot: weights[ballot.agent]).text
