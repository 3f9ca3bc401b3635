"""Optimal weights without labels (Ai et al. 2025, arXiv:2510.01499): accuracies fitted to agreement rates.

If agents err independently, and all wrong options are equally likely, two agents agree with
probability p_ij such that

    (K p_ij - 1)/(K-1) = z_i z_j,    z_i = (K x_i - 1)/(K-1)

so from three agents on their accuracies x follow from their agreement alone, but for one sign: it is
taken that agents are, on the whole, better than chance.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from itertools import combinations

from services.aggregator.scores.agreement import Agreement, Pair
from services.aggregator.strategies.ballot import Ballot, StrategyContext, Tally
from services.aggregator.strategies.log_odds import never_certain, vote_by_accuracy

MOST_SWEEPS = 200
_SETTLED_WITHIN = 1e-8
"""The fit ends when no z moves by more than this in a sweep."""
_DECIMALS = 6
"""Of a fitted accuracy. Agents that agree alike come out alike: beyond these the sweep's order shows."""


def ow_l(ballots: Sequence[Ballot], context: StrategyContext) -> Tally:
    """Every agent that has an answer votes with the log-odds of its fitted accuracy.

    An agent that is not one of three that have all met cannot be fitted: it is taken to be at chance,
    and weighs 0. If that holds for all that vote, as without any agreement, the decision is the majority's.
    """
    known = fitted_accuracies([ballot.agent for ballot in ballots], context.options_for(ballots), context)
    return vote_by_accuracy("ow_l", ballots, known, context)


def fitted_accuracies(agents: Iterable[str], options: int, context: StrategyContext) -> dict[str, float]:
    """The fitted accuracy of each agent; chance of one that cannot be fitted."""
    fitted = fit_accuracies(context.agreement, options) if context.agreement else {}
    return {agent: never_certain(fitted.get(agent, 1 / options)) for agent in agents}


def fit_accuracies(agreement: Mapping[Pair, Agreement], options: int) -> dict[str, float]:
    """The accuracy of each agent that is one of three that have all met; of no other.

    Least squares over the pairs, `sum n_ij (c_ij - z_i z_j)^2`: c_ij is the pair's agreement beyond
    chance, n_ij the number of questions that both answered. Each z in turn takes its best value, which
    is a division, until they settle; so the sum falls with every step.
    """
    return dict(_fitted(frozenset(agreement.items()), options))


@lru_cache(maxsize=16)
def _fitted(agreement: frozenset[tuple[Pair, Agreement]], options: int) -> tuple[tuple[str, float], ...]:
    """The fit of such agreements: asked for again by all that look at one question, and by all questions of a
    batch."""
    met = {pair: each for pair, each in agreement if each.both}
    neighbours: dict[str, set[str]] = {}
    for one, other in met:
        neighbours.setdefault(one, set()).add(other)
        neighbours.setdefault(other, set()).add(one)
    fitted = sorted(agent for agent in neighbours if _is_of_three(agent, neighbours))

    pulls: dict[str, list[tuple[str, float, float]]] = {agent: [] for agent in fitted}
    for agent in fitted:
        for other in sorted(neighbours[agent].intersection(fitted)):
            pair = met[frozenset((agent, other))]
            pulls[agent].append((other, float(pair.both), pair.beyond_chance(options)))
    z = _settle(pulls, options)
    return tuple((agent, round((1 + (options - 1) * z[agent]) / options, _DECIMALS)) for agent in fitted)


def _is_of_three(agent: str, neighbours: Mapping[str, set[str]]) -> bool:
    return any(other in neighbours[one] for one, other in combinations(neighbours[agent], 2))


def _settle(pulls: Mapping[str, Sequence[tuple[str, float, float]]], options: int) -> dict[str, float]:
    """The z of least squares. `pulls` has, for each agent, the others it met as (agent, n, c)."""
    least = -1 / (options - 1)
    place = {agent: number for number, agent in enumerate(pulls)}
    rows = [[(place[other], n, n * c) for other, n, c in others] for others in pulls.values()]
    z = [_start(others) for others in pulls.values()]
    for _ in range(MOST_SWEEPS):
        moved = 0.0
        for number, others in enumerate(rows):
            along = square = 0.0
            for other, n, pull in others:
                at = z[other]
                along += pull * at
                square += n * at * at
            best = along / square if square else 0.0
            if best < least:
                best = least
            elif best > 1.0:
                best = 1.0
            step = best - z[number]
            if step > moved or -step > moved:
                moved = step if step > 0 else -step
            z[number] = best
        if moved < _SETTLED_WITHIN:
            break
    return dict(zip(pulls, z, strict=True))


def _start(others: Sequence[tuple[str, float, float]]) -> float:
    """Where the fit begins: better than chance if the agent agrees with others more often than by chance."""
    return math.sqrt(max(0.0, max(c for _, _, c in others)))
