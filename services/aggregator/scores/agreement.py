"""The agreement of agents: how often two gave the same answer, whatever was right.

Predict first, update after, as with histories: a question is decided with the agreement on other
questions only.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from itertools import combinations
from typing import NamedTuple

Pair = frozenset[str]
"""Two agents, in no order."""

SMOOTHING = 4.0
"""How many questions on which two agents agree as by chance are imagined before the real ones."""


class Agreement(NamedTuple):
    """Of `both` questions that two agents answered, they gave the same answer to `agreed`.

    A question on which one of them abstained is in neither. What is read from the store is checked there.
    """

    agreed: int = 0
    both: int = 0

    def after(self, *, same: bool) -> Agreement:
        """This agreement and one more question that both answered."""
        return Agreement(self.agreed + same, self.both + 1)

    def plus(self, other: Agreement) -> Agreement:
        """This agreement and that on other questions."""
        return Agreement(self.agreed + other.agreed, self.both + other.both)

    def often(self, times: int) -> Agreement:
        """This agreement so many times."""
        return Agreement(self.agreed * times, self.both * times)

    def beyond_chance(self, options: int) -> float:
        """`(K p - 1) / (K - 1)`, p the agreement rate: 1 if always, 0 as by chance, less below that.

        Shrunk towards 0 by `SMOOTHING` imagined questions; 0 if the two have never met.
        """
        above = (options * self.agreed - self.both) / (options - 1)
        return above / (self.both + SMOOTHING)


NEVER_MET = Agreement()


def agreements(questions: Iterable[Mapping[str, str | None]]) -> dict[Pair, Agreement]:
    """The agreement of every two agents over questions, each given as the normalised answer by agent.

    Who abstained (None) meets nobody on that question. The questions should have the same number of options.
    """
    counted: dict[Pair, Agreement] = {}
    for answers in questions:
        given = [(agent, answer) for agent, answer in answers.items() if answer is not None]
        for (one, its), (other, theirs) in combinations(given, 2):
            pair = frozenset((one, other))
            counted[pair] = counted.get(pair, NEVER_MET).after(same=its == theirs)
    return counted
