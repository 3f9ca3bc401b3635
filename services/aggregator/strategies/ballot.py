"""What a strategy is given: the ballots of one question, and what is known beside them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from schemas.replies import Decision
from services.aggregator.agreement import NEVER_MET, Agreement, Pair
from services.aggregator.history import NO_HISTORY, AgentHistory

FEWEST_OPTIONS = 2


@dataclass(frozen=True)
class Ballot:
    """One agent's answer: its text, and what was read from it (None if nothing could be: it abstains)."""

    agent: str
    text: str
    answer: str | None


@dataclass(frozen=True)
class StrategyContext:
    """What a strategy may know beside the ballots.

    `seed` decides ties; from the same request it must always be the same (its id will do), so that
    any aggregator decides alike. `options` is the number of options of a closed question, None for
    an open one. `history` has the agents of whom something is known, `topic_history` the same on this
    question's topic alone. `agreement` has the pairs of agents that have answered the same questions.
    """

    seed: str
    options: int | None = None
    history: Mapping[str, AgentHistory] = field(default_factory=dict)
    topic_history: Mapping[str, AgentHistory] = field(default_factory=dict)
    agreement: Mapping[Pair, Agreement] = field(default_factory=dict)

    def history_of(self, agent: str) -> AgentHistory:
        """What is known of an agent; an empty history if nothing is."""
        return self.history.get(agent, NO_HISTORY)

    def topic_history_of(self, agent: str) -> AgentHistory:
        """What is known of an agent on this question's topic; an empty history if nothing is."""
        return self.topic_history.get(agent, NO_HISTORY)

    def agreement_of(self, one: str, other: str) -> Agreement:
        """How two agents have agreed; an empty agreement if they never met."""
        return self.agreement.get(frozenset((one, other)), NEVER_MET)

    def options_for(self, ballots: Sequence[Ballot]) -> int:
        """K: the options of a closed question; for an open one, one more than there are ballots.

        Nobody has counted the answers that an open question could have; there is room for everybody's
        own, and for the right one.
        """
        return max(FEWEST_OPTIONS, len(ballots) + 1 if self.options is None else self.options)


Strategy = Callable[[Sequence[Ballot], StrategyContext], Decision]
"""A strategy is a pure function: the same ballots and context always give the same decision.

Ballots come in an order that does not depend on who answered first (that of the request's members).
"""
