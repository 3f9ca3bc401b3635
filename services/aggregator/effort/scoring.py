"""How a strategy scores answers while some members have not answered: what each vote adds to each answer.

A decision is that of the greatest score, and a score is a sum over the votes. What a vote adds may depend on
who else votes; so of a question that is not answered by all there are several scorings, one for each way in
which the rest may come out. What holds in all of them holds whatever the rest say. Pure.
"""

from __future__ import annotations

import math
import string
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

from services.aggregator.strategies.ballot import Ballot, StrategyContext
from services.aggregator.strategies.log_odds import log_odds_weights, weighs_nothing
from services.aggregator.strategies.votes.dawid_skene import chance_of
from services.aggregator.strategies.votes.isp import isp_weights
from services.aggregator.strategies.votes.ow_i import isp_accuracies
from services.aggregator.strategies.votes.ow_l import fitted_accuracies
from services.aggregator.strategies.votes.topic import topic_accuracies
from services.aggregator.strategies.votes.weighted import overall_accuracies

UNSEEN = "\x00"
"""Stands for an answer to an open question that nobody has given yet: no answer is read as this."""
MOST_PARTIES = 10
"""Of `isp`, whose weights depend on who votes, nothing is said while more members than these are left."""

Gain = Callable[[str, str, str], float]
"""What the score of an answer gains by an agent's vote: (agent, what it said, the answer)."""


@dataclass(frozen=True)
class Standing:
    """A question that not all have answered.

    `ballots` are those of who has. Of the members `outstanding`, at most `at_most` will still have a ballot:
    all of them, or as many as a quorum leaves. With `calls` an answer may also be one that calls tools.
    """

    ballots: tuple[Ballot, ...]
    outstanding: tuple[str, ...]
    at_most: int
    calls: bool = False

    def after(self, more: Sequence[Ballot]) -> Standing:
        """The same when these have answered too."""
        came = {ballot.agent for ballot in more}
        left = tuple(agent for agent in self.outstanding if agent not in came)
        at_most = max(0, min(self.at_most - len(more), len(left)))
        return Standing((*self.ballots, *more), left, at_most, self.calls)

    @property
    def votes(self) -> tuple[tuple[str, str], ...]:
        """Who has said what; without those who abstain."""
        return tuple((b.agent, b.answer) for b in self.ballots if b.answer is not None)


@dataclass(frozen=True)
class Scoring:
    """One way in which the rest may come out: what votes add to answers, and who of the rest may vote.

    `candidates` are the answers that can win. Where `alike`, a vote adds to the answer that it is for, and to
    all others nothing.
    """

    candidates: tuple[str, ...]
    gain: Gain
    voters: tuple[str, ...]
    at_most: int
    alike: bool = True


def candidates_of(standing: Standing, options: int | None) -> tuple[str, ...]:
    """The answers that can win: the letters of a closed question, else what was said and what may be."""
    said = dict.fromkeys(answer for _, answer in standing.votes)
    if options is None:
        return (*said, UNSEEN)
    letters = dict.fromkeys((*string.ascii_uppercase[:options], *said))
    return (*letters, UNSEEN) if standing.calls else tuple(letters)


def scorings(strategy: str, standing: Standing, context: StrategyContext) -> Iterator[Scoring] | None:
    """All scorings that a strategy may come to; None if there are too many to look at."""
    if strategy == "dawid_skene" and context.options is not None:
        return iter((_likelihoods(standing, context, max(2, context.options)),))
    if strategy == "isp" and context.options is not None:
        many = len(standing.outstanding) > MOST_PARTIES
        return None if many else _by_party(standing, context, max(2, context.options))
    if strategy in _ACCURACIES:
        return _by_accuracy(strategy, standing, context)
    ones = dict.fromkeys((*(agent for agent, _ in standing.votes), *standing.outstanding), 1.0)
    return iter((_weighed(standing, context, ones, standing.outstanding, standing.at_most),))


def fullest(strategy: str, standing: Standing, context: StrategyContext) -> Scoring:
    """The scoring if all of the rest vote."""
    if strategy == "isp" and context.options is not None:
        agents = [*(agent for agent, _ in standing.votes), *standing.outstanding]
        weights = isp_weights(agents, max(2, context.options), context)
        return _weighed(standing, context, weights, standing.outstanding, standing.at_most)
    if strategy not in _ACCURACIES:
        found = scorings(strategy, standing, context)
        return next(found)  # type: ignore[arg-type]  # None is of isp alone
    agents = [*(agent for agent, _ in standing.votes), *standing.outstanding]
    options = _options(len(standing.ballots) + standing.at_most, context)
    weights = log_odds_weights(_ACCURACIES[strategy](agents, options, context), options, context)
    if all(weighs_nothing(weight) for weight in weights.values()):
        weights = dict.fromkeys(weights, 1.0)
    return _weighed(standing, context, weights, standing.outstanding, standing.at_most)


_ACCURACIES = {
    "weighted": overall_accuracies,
    "topic": topic_accuracies,
    "ow_l": fitted_accuracies,
    "ow_i": isp_accuracies,
}


def _options(ballots: int, context: StrategyContext) -> int:
    """K, as `StrategyContext.options_for` has it for so many ballots."""
    return max(2, ballots + 1 if context.options is None else context.options)


def _weighed(
    standing: Standing,
    context: StrategyContext,
    weights: Mapping[str, float],
    voters: Sequence[str],
    at_most: int,
) -> Scoring:
    def gain(agent: str, said: str, answer: str) -> float:
        return weights[agent] if said == answer else 0.0

    candidates = candidates_of(standing, context.options)
    return Scoring(candidates, gain, tuple(voters), min(at_most, len(voters)))


def _by_accuracy(strategy: str, standing: Standing, context: StrategyContext) -> Iterator[Scoring]:
    """Of an open question K grows with the ballots. Where all that vote weigh nothing they all weigh 1."""
    voted = [agent for agent, _ in standing.votes]
    agents = [*voted, *standing.outstanding]
    counts = range(standing.at_most + 1) if context.options is None else (standing.at_most,)
    for further in counts:
        options = _options(len(standing.ballots) + further, context)
        known = _ACCURACIES[strategy](agents, options, context)
        weights = log_odds_weights(known, options, context)
        mute = tuple(agent for agent in standing.outstanding if weighs_nothing(weights[agent]))
        none_yet = all(weighs_nothing(weights[agent]) for agent in voted)
        if none_yet:
            yield _weighed(standing, context, dict.fromkeys(agents, 1.0), mute, further)
        if not none_yet or (further and len(mute) < len(standing.outstanding)):
            yield _weighed(standing, context, weights, standing.outstanding, further)


def _by_party(standing: Standing, context: StrategyContext, options: int) -> Iterator[Scoring]:
    """One scoring for each set of members that may still vote."""
    voted = [agent for agent, _ in standing.votes]
    for size in range(standing.at_most + 1):
        for party in combinations(standing.outstanding, size):
            yield _weighed(standing, context, isp_weights([*voted, *party], options, context), party, size)


def _likelihoods(standing: Standing, context: StrategyContext, options: int) -> Scoring:
    """The logarithm of the likelihood of an option is a sum over the votes; options alone are votes."""
    letters = string.ascii_uppercase[:options]
    chances: dict[tuple[str, str, str], float] = {}

    def gain(agent: str, said: str, answer: str) -> float:
        if said not in letters:
            return 0.0
        key = (agent, said, answer)
        if key not in chances:
            counts = context.confusions.get(agent)
            chance = chance_of(counts, options, letters.index(answer), letters.index(said))
            chances[key] = math.log(chance)
        return chances[key]

    return Scoring(tuple(letters), gain, standing.outstanding, standing.at_most, alike=False)
