"""What goes into a strategy and what comes out: ballots, what is known beside them, and the tally.

Votes are counted, and ties broken, alike by all strategies.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from schemas.replies import Decision, Vote
from services.aggregator.scores.agreement import NEVER_MET, Agreement, Pair
from services.aggregator.scores.history import NO_HISTORY, AgentHistory, Confusion

FEWEST_OPTIONS = 2
EQUAL_WITHIN = 1e-9
"""Scores that differ by less are equal but for rounding."""


@dataclass(frozen=True)
class Ballot:
    """One agent's answer: its text, and what was read from it (None if nothing could be: it abstains).

    `probabilities` is how probable the agent holds each option of a closed question, by its letter;
    `predicted` the answer that it expects of most others. Both are there only where they were asked for.
    """

    agent: str
    text: str
    answer: str | None
    probabilities: Mapping[str, float] = field(default_factory=dict)
    predicted: str | None = None


@dataclass(frozen=True)
class Comparison:
    """A judge held one agent's answer for better than another's."""

    judge: str
    won: str
    lost: str


@dataclass(frozen=True)
class Ballots:
    """All ballots of one question.

    `first` has a ballot for each agent that answered, in the order of the members. `second_round` has
    those who answered again, knowing the others' answers: None if nobody was asked to. `samples` are
    further answers of one agent to the same question, without its first. `synthesis` is what an agent wrote
    from all answers, `own_synthesis` what the sampled agent wrote from its own. `vectors` are those of what
    agents said, by agent.
    """

    first: tuple[Ballot, ...]
    second_round: tuple[Ballot, ...] | None = None
    samples: tuple[Ballot, ...] = ()
    synthesis: Ballot | None = None
    own_synthesis: Ballot | None = None
    comparisons: tuple[Comparison, ...] = ()
    vectors: Mapping[str, tuple[float, ...]] = field(default_factory=dict)


@dataclass(frozen=True)
class StrategyContext:
    """What a strategy may know beside the ballots of the first round.

    `seed` decides ties; from the same request it must always be the same, so that any aggregator decides
    alike. `options` is the number of options of a closed question, None for an open one; `topic` what the
    question is about, if that is known. `history` has the agents of whom something is known,
    `topic_history` the same on this question's topic alone. From questions with as many options as this
    one, whatever was right: `agreement` has the pairs of agents that have answered the same questions,
    `isp_history` how often each gave the answer that isp chose, `confusions` what each is expected to
    have said for what. All from `second_round` on: see `Ballots`.
    """

    seed: str
    options: int | None = None
    topic: str | None = None
    history: Mapping[str, AgentHistory] = field(default_factory=dict)
    topic_history: Mapping[str, AgentHistory] = field(default_factory=dict)
    agreement: Mapping[Pair, Agreement] = field(default_factory=dict)
    isp_history: Mapping[str, AgentHistory] = field(default_factory=dict)
    confusions: Mapping[str, Confusion] = field(default_factory=dict)
    second_round: Sequence[Ballot] | None = None
    samples: Sequence[Ballot] = ()
    synthesis: Ballot | None = None
    own_synthesis: Ballot | None = None
    comparisons: Sequence[Comparison] = ()
    vectors: Mapping[str, tuple[float, ...]] = field(default_factory=dict)

    def history_of(self, agent: str) -> AgentHistory:
        """What is known of an agent; an empty history if nothing is."""
        return self.history.get(agent, NO_HISTORY)

    def topic_history_of(self, agent: str) -> AgentHistory:
        """What is known of an agent on this question's topic; an empty history if nothing is."""
        return self.topic_history.get(agent, NO_HISTORY)

    def isp_history_of(self, agent: str) -> AgentHistory:
        """How often an agent gave isp's answer; an empty history if it never did anything."""
        return self.isp_history.get(agent, NO_HISTORY)

    def agreement_of(self, one: str, other: str) -> Agreement:
        """How two agents have agreed; an empty agreement if they never met."""
        return self.agreement.get(frozenset((one, other)), NEVER_MET)

    def options_for(self, ballots: Sequence[Ballot]) -> int:
        """K: the options of a closed question; for an open one, one more than there are ballots.

        Nobody has counted the answers that an open question could have; there is room for everybody's
        own, and for the right one.
        """
        options = len(ballots) + 1 if self.options is None else self.options
        return options if options > FEWEST_OPTIONS else FEWEST_OPTIONS


class WeighedVote(NamedTuple):
    """One agent's part in a tally. `answer` is None if its text could not be read: it abstains."""

    agent: str
    answer: str | None
    weight: float


class Tally(NamedTuple):
    """What a strategy makes of ballots: the fields of `Decision`, as plain values.

    Kept answers are decided again in their thousands, so nothing is checked here: a message is made, and
    checked, of what is told.
    """

    strategy: str
    answer: str | None
    text: str | None
    share: float
    margin: float
    tie: bool
    votes: tuple[WeighedVote, ...]
    scores: dict[str, float]
    abstained: tuple[str, ...] = ()
    note: str | None = None

    def decision(self, confidence: float | None = None) -> Decision:
        """The same as a message."""
        votes = tuple(Vote(agent=v.agent, answer=v.answer, weight=v.weight) for v in self.votes)
        return Decision(**self._asdict() | {"votes": votes, "confidence": confidence})


Strategy = Callable[[Sequence[Ballot], StrategyContext], Tally]
"""A strategy is a pure function: the same ballots and context always give the same decision.

The ballots are those of the first round, in an order that does not depend on who answered first (that of
the request's members). A strategy that wants more finds it in the context, and says in the decision's
`note` what it did without.
"""


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
