"""The histories of agents, from which strategies take the weights of votes.

Predict first, update after: a request is decided with the history as it stood before it, and only then
changes it (`learning.py`), so no agent is ever judged by an answer it was weighted with.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from services.aggregator.scores.agreement import NEVER_MET, Agreement, Pair

Confusion = tuple[float, ...]
"""K x K expected counts of one agent over questions of K options, row by row: at `K * s + a` how often it
said option a where option s was right, as far as that can be told from all answers."""


class AgentHistory(NamedTuple):
    """`asked` questions whose right answer became known, of which an agent had `correct` right.

    Questions on which it abstained are in neither. What is read from the store is checked there.
    """

    correct: int = 0
    asked: int = 0

    def after(self, *, right: bool) -> AgentHistory:
        """This history and one more question."""
        return AgentHistory(self.correct + right, self.asked + 1)

    def plus(self, other: AgentHistory) -> AgentHistory:
        """This history and another one's questions."""
        return AgentHistory(self.correct + other.correct, self.asked + other.asked)


NO_HISTORY = AgentHistory()


@dataclass
class Unlabelled:
    """What questions of K options tell of agents without anybody saying what was right: sums, so that what
    is learnt in two places can be added.

    `agreement` of every two agents; `isp` how often each gave the answer that isp chose; `confusions`.
    """

    agreement: dict[Pair, Agreement] = field(default_factory=dict)
    isp: dict[str, AgentHistory] = field(default_factory=dict)
    confusions: dict[str, Confusion] = field(default_factory=dict)

    def add(self, more: Unlabelled) -> None:
        """Counts what was learnt elsewhere, from other questions of K options."""
        for pair, agreement in more.agreement.items():
            self.agreement[pair] = self.agreement.get(pair, NEVER_MET).plus(agreement)
        for agent, history in more.isp.items():
            self.isp[agent] = self.isp.get(agent, NO_HISTORY).plus(history)
        for agent, counts in more.confusions.items():
            known = self.confusions.get(agent)
            self.confusions[agent] = (
                counts if known is None else tuple(a + b for a, b in zip(known, counts, strict=True))
            )


@dataclass
class History:
    """All that is known: accuracy by agent, by topic and agent; and by the number of options, what can be
    known without right answers."""

    agents: dict[str, AgentHistory] = field(default_factory=dict)
    topics: dict[str, dict[str, AgentHistory]] = field(default_factory=dict)
    closed: dict[int, Unlabelled] = field(default_factory=dict)


def judge(answers: Mapping[str, str | None], correct: str) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The agents that were right and those that were wrong, given the normalised answers of all.

    `correct` is normalised as the answers were. Who abstained (None) is neither right nor wrong.
    """
    right = tuple(agent for agent, answer in answers.items() if answer == correct)
    wrong = tuple(agent for agent, answer in answers.items() if answer not in (None, correct))
    return right, wrong
