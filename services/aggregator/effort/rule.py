"""The rule by which a cascade stops, and whom it asks next. Pure.

Whom it asks depends on the members, on what is known of them and on who has answered what, and on nothing
else: an aggregator that takes over asks on from what is stored.
"""

from __future__ import annotations

import string
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from services.aggregator import strategies
from services.aggregator.effort.likely import chance_of_change, known_accuracies
from services.aggregator.effort.scoring import Standing, fullest
from services.aggregator.effort.settled import settled
from services.aggregator.strategies.auto import FEWEST_JUDGED
from services.aggregator.strategies.ballot import Ballot, StrategyContext, Tally, tie_break
from services.aggregator.strategies.log_odds import log_odds_weight

PROBABLY = 0.5
"""The answers of each wave but the last are more probably enough than this: one that hardly ever ends a
cascade takes time and spares little."""
FURTHER_WAVES = 0.45
"""With a third wave so many after the first one are expected at most, by what is known of the members: each
takes as long as its slowest member."""
MOST_WAVES = 3
"""The last of so many waves asks all who are left."""
LEAST_WEIGHT = 0.1
"""What a member that is hardly better than chance weighs when it is chosen whom to ask first."""


@dataclass(frozen=True)
class Rule:
    """When the answers of some members are enough for every one of `names`, the strategies.

    With an `epsilon` they are enough when a change is no more probable than that, else only when there can be
    none. `members` are all that there are, `costs` what each costs beside the others (0 if not known).
    """

    names: tuple[str, ...]
    members: tuple[str, ...]
    context: StrategyContext
    epsilon: float | None = None
    costs: tuple[float, ...] = ()
    accuracies: Mapping[str, float | None] = field(init=False)

    def __post_init__(self) -> None:
        known = known_accuracies(self.members, self.context, self.options)
        object.__setattr__(self, "accuracies", known)

    @property
    def options(self) -> int:
        """K, where all members have answered."""
        return self.context.options_for([Ballot(member, "", None) for member in self.members])

    def order(self) -> tuple[str, ...]:
        """The members as they are to be asked: first who weighs most for what it costs; equals as they stand.

        Of whom nothing is known weighs as much as the others do on average, and costs as much.
        """
        known = [self._weight(x) for x in self.accuracies.values() if x is not None]
        usual = sum(known) / len(known) if known else 1.0
        paid = [cost for cost in self.costs if cost > 0]
        usual_cost = sum(paid) / len(paid) if paid else 1.0
        costs = dict(zip(self.members, self.costs, strict=True)) if self.costs else {}

        def worth(member: str) -> float:
            x = self.accuracies[member]
            return (usual if x is None else self._weight(x)) / (costs.get(member) or usual_cost)

        return tuple(sorted(self.members, key=worth, reverse=True))

    def _weight(self, accuracy: float) -> float:
        return max(LEAST_WEIGHT, log_odds_weight(accuracy, self.options))

    def decide(self, ballots: Sequence[Ballot]) -> tuple[Tally, ...]:
        """What each strategy decides from these."""
        return tuple(strategies.get(name)(ballots, self.context) for name in self.names)

    def enough(self, standing: Standing) -> float | None:
        """How probable it is, at most, that the rest would change a decision; None if that is too much.

        0 means that they cannot.
        """
        worst = 0.0
        for name in self.names:
            bound = self._bound(name, standing)
            if bound is None:
                return None
            worst = max(worst, bound)
        return worst

    def _bound(self, name: str, standing: Standing) -> float | None:
        leader = self._leader(name, standing)
        if settled(name, leader, standing, self.context):
            return 0.0
        if self.epsilon is None or leader is None:
            return None
        way = fullest(name, standing, self.context)
        bound = chance_of_change(
            way, leader, standing, self.accuracies, self.options, self.context.seed, self.epsilon
        )
        return bound if bound <= self.epsilon else None

    def _leader(self, name: str, standing: Standing) -> str | None:
        return strategies.get(name)(standing.ballots, self.context).answer

    def next_wave(self, standing: Standing, unasked: Sequence[str], number: int) -> tuple[str, ...]:
        """Whom to ask next: the fewest of `unasked` whose answers are more probably enough than `PROBABLY`,
        and so probably that no more waves than `FURTHER_WAVES` are to be expected after the first.

        `unasked` is in the order of asking; `number` counts the waves, from 1.
        """
        if number >= MOST_WAVES:
            return tuple(unasked)
        needed = self._needed(unasked, number)
        for count in range(1, len(unasked)):
            wave = tuple(unasked[:count])
            if needed < 1 and self._chance_of_enough(standing, wave) > needed:
                return wave
        return tuple(unasked)

    def _needed(self, unasked: Sequence[str], number: int) -> float:
        """How probable it has to be that a wave is enough. After a first that was so with p, the second has
        to be with q, where `(1 - p) + (1 - p) (1 - q)` are `FURTHER_WAVES`."""
        if number == 1:
            return PROBABLY
        order = self.order()
        first = [member for member in order if member not in unasked]
        failed = 1 - self._chance_of_enough(Standing((), order, len(order)), first)
        return max(PROBABLY, 2 - FURTHER_WAVES / failed if failed else 0.0)

    def _chance_of_enough(self, standing: Standing, wave: Sequence[str]) -> float:
        """How probable it is that the answers of a wave are enough. Who errs says what the rival has, all
        others what leads; as many as err are taken to be the last, who weigh least."""
        chances, sides = self._chances_of_errors(wave), self._sides(standing)
        total = 0.0
        for leader, rival in sides:
            for errors, chance in enumerate(chances):
                said = [leader] * (len(wave) - errors) + [rival] * errors
                came = [Ballot(member, each, each) for member, each in zip(wave, said, strict=True)]
                if self.enough(standing.after(came)) is None:
                    break
                total += chance / len(sides)
        return total

    def _chances_of_errors(self, wave: Sequence[str]) -> list[float]:
        """How probable it is that none, one, ... of them err, each at times of its own; of whom little is
        known (`FEWEST_JUDGED`) is taken not to."""
        chances = [1.0]
        for member in wave:
            x = self.accuracies[member]
            is_known = self.context.history_of(member).asked >= FEWEST_JUDGED
            err = 1 - x if is_known and x is not None else 0.0
            chances = [
                same * (1 - err) + fewer * err
                for same, fewer in zip((*chances, 0.0), (0.0, *chances), strict=True)
            ]
        return chances

    def _sides(self, standing: Standing) -> list[tuple[str, str]]:
        """What leads, and what those say who err. Where nobody has answered these are two answers of which
        one wins a tie by its lot, either way round."""
        letters = string.ascii_uppercase[: max(2, self.context.options or 0)]
        by_lot = sorted(letters, key=lambda letter: tie_break(self.context.seed, letter))
        decided = strategies.get(self.names[0])(standing.ballots, self.context)
        if decided.answer is None:
            return [(by_lot[-1], by_lot[0]), (by_lot[0], by_lot[-1])]
        return [(decided.answer, next(a for a in (*decided.scores, *by_lot) if a != decided.answer))]
