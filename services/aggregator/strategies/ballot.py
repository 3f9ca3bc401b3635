"""What goes into a strategy and what comes out: ballots, what is known beside them, and the tally."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from schemas.replies import Decision, Vote
from services.aggregator.scores.agreement import NEVER_MET, Agreement, Pair
from services.aggregator.scores.history import NO_HISTORY, AgentHistory, Confusion

FEWEST_OPTIONS = 2


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
