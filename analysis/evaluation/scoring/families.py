"""Which contestants are compared, which of them are the same, and how small a difference their family can
show.

A family is all pairs of a benchmark that are tested: the more of them, the more Holm asks of each. A
strategy that decides every question as another does, or had nothing but votes to go by, is no further
witness: it is named with whom it equals, and adds no pairs.
"""

from __future__ import annotations

from itertools import combinations

from analysis.evaluation.contestants.baselines import BEST_AGENT, SELF_CONSISTENCY
from analysis.evaluation.contestants.replay import BEST_SINGLE
from analysis.evaluation.contestants.routers import ROUTER, ROUTER_ONLINE
from analysis.evaluation.scoring.scores import Contestant, Field
from analysis.statistics.intervals import wilson
from analysis.statistics.power import ALPHA, smallest_detectable_difference, squared_difference

Pair = tuple[Contestant, Contestant]

COMPARED_BASELINES = (BEST_AGENT, ROUTER, ROUTER_ONLINE, BEST_SINGLE, SELF_CONSISTENCY)
MAJORITY = "majority"


def same_as(field: Field) -> dict[str, str]:
    """The strategies that decide as an earlier one does on every sample, or as the majority would."""
    found: dict[str, str] = {}
    seen: dict[tuple[tuple[str | None, float], ...], str] = {}
    for strategy in field.of("strategy"):
        first = seen.setdefault(strategy.decisions, strategy.name)
        if first != strategy.name:
            found[strategy.name] = first
        elif fell_back(strategy):
            found[strategy.name] = MAJORITY
    return found


def fell_back(contestant: Contestant) -> bool:
    """Whether it had nothing but votes to go by wherever the answers differed."""
    contested = [outcome.fell_back for outcome in contestant.outcomes if outcome.fell_back is not None]
    return bool(contested) and all(contested)


def compared(field: Field) -> list[Pair]:
    """The family: every two strategies, and every strategy with the baselines that are worth a test.

    Without strategies that are the same as others, and pairs that never decided differently.
    """
    same = same_as(field)
    strategies = [each for each in field.of("strategy") if each.name not in same]
    baselines = [found for name in COMPARED_BASELINES if (found := field.named(name)) is not None]
    against = [(one, other) for other in baselines for one in strategies]
    pairs = [*combinations(strategies, 2), *against]
    return [(one, other) for one, other in pairs if one.decisions != other.decisions]


def smallest_difference(one: Contestant, other: Contestant, family: int) -> float | None:
    """The smallest difference in accuracy to `other` that so many questions show four times in five.

    At the level of a family of so many pairs, from the observed spread of the two; where they never differed
    from the most that this allows for (the upper end of its Wilson interval). None for a contestant and
    itself.
    """
    if one is other:
        return None
    n = one.questions.n
    squared = squared_difference(one.means, other.means)
    if squared == 0:
        interval = wilson(0, n).interval
        squared = interval[1] if interval else 1.0
    return smallest_detectable_difference(n, squared, alpha=ALPHA / max(1, family))
