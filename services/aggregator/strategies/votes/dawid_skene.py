"""The likeliest answer under each agent's error rates (Dawid and Skene 1979, Applied Statistics 28).

Agent i says option a where s is right with probability `P_i(a|s)`, independently of the others; every option
is right equally often (options are shuffled). Then, given the answers a_i to one question,

    P(s) ~ prod_i P_i(a_i | s)

Nobody says what was right: error rates are expected counts, each question counted for every option as far
as it is probable that this option was right (EM). `expected_counts` does that for one question after
another, each with what the earlier ones have taught (stepwise EM, Liang and Klein 2009); `fit` for all of
them together until nothing changes any more.
"""

from __future__ import annotations

import math
import string
from collections import Counter
from collections.abc import Mapping, Sequence

from services.aggregator.scores.history import Confusion
from services.aggregator.strategies.ballot import Ballot, StrategyContext, Tally, choose, tally, votes

IMAGINED = 4.0
"""The pseudo-count of the Dirichlet prior, per option. The mean accuracy of the prior lies halfway between
chance and 1, and its errors are uniform. Agents are taken to be better than chance: that settles which of the
permutations of the options is the right one."""

OPEN_QUESTION = "error rates are known for closed questions only: decided as majority"
MOST_ROUNDS = 200
_SETTLED_WITHIN = 1e-6


def dawid_skene(ballots: Sequence[Ballot], context: StrategyContext) -> Tally:
    """The option with the greatest posterior probability; the scores are these, of all options.

    The weight of a vote is how probable it is that its agent says so where it is right. Without anything
    learnt all agents are equally good, and the decision is the majority's.
    """
    if context.options is None:
        weights = {ballot.agent: 1.0 for ballot in ballots}
        return tally("dawid_skene", ballots, weights, context.seed, OPEN_QUESTION)
    options = max(2, context.options)
    said = answers_of(ballots, options)
    readable = [b if b.agent in said else Ballot(b.agent, b.text, None) for b in ballots]
    weights = {agent: chance_of(context.confusions.get(agent), options, a, a) for agent, a in said.items()}
    posterior = posterior_of(said, context.confusions, options) if said else []
    scores = {string.ascii_uppercase[s]: p for s, p in enumerate(posterior)}
    return choose("dawid_skene", readable, votes(readable, weights), scores, 1.0, context.seed)


def answers_of(ballots: Sequence[Ballot], options: int) -> dict[str, int]:
    """The number of the option (A is 0) that each agent chose; without those who chose none."""
    letters = string.ascii_uppercase[:options]
    return {b.agent: letters.index(b.answer) for b in ballots if b.answer and b.answer in letters}


def posterior_of(said: Mapping[str, int], confusions: Mapping[str, Confusion], options: int) -> list[float]:
    """How probable it is of each option that it is right, given who said what."""
    return _normalised([log_chances(confusions.get(agent), options, a) for agent, a in said.items()])


def _normalised(told: Sequence[Sequence[float]]) -> list[float]:
    """Probabilities that add up to 1, from the logarithms that each agent's answer tells of each option."""
    logs = list(map(math.fsum, zip(*told, strict=True)))
    greatest = max(logs)
    likelihoods = [math.exp(log - greatest) for log in logs]
    total = math.fsum(likelihoods)
    return [likelihood / total for likelihood in likelihoods]


def chance_of(counts: Confusion | None, options: int, right: int, said: int) -> float:
    """`P(said | right)` of an agent with these expected counts, smoothed."""
    prior = _prior(options, said == right)
    if counts is None:
        return prior
    row = counts[options * right : options * (right + 1)]
    return (row[said] + IMAGINED * prior) / (sum(row) + IMAGINED)


def log_chances(counts: Confusion | None, options: int, said: int) -> list[float]:
    """`ln P(said | right)`, for each option that could be right."""
    if counts is None:
        return [math.log(_prior(options, said == right)) for right in range(options)]
    hit, miss = IMAGINED * _prior(options, True), IMAGINED * _prior(options, False)
    return [
        math.log(
            (counts[start + said] + (hit if start == options * said else miss))
            / (sum(counts[start : start + options]) + IMAGINED)
        )
        for start in range(0, options * options, options)
    ]


def _prior(options: int, hit: bool) -> float:
    """How probable an answer is of an agent of which nothing is known, beside `IMAGINED`."""
    by_chance = 1 / options
    return (1 + by_chance) / 2 if hit else (1 - by_chance) / 2 / (options - 1)


def expected_counts(
    said: Mapping[str, int], confusions: Mapping[str, Confusion], options: int
) -> dict[str, Confusion]:
    """What one question adds to the counts of each agent that answered it, given what is known of them."""
    posterior = posterior_of(said, confusions, options)
    counts = {}
    for agent, answer in said.items():
        added = [0.0] * (options * options)
        added[answer::options] = posterior
        counts[agent] = tuple(added)
    return counts


def fit(questions: Sequence[Mapping[str, int]], options: int) -> dict[str, Confusion]:
    """The expected counts of EM over all of `questions`, each given as the option that each agent chose.

    Starts from the agents being equally good, so from the shares of the votes.
    """
    patterns = Counter(tuple(sorted(said.items())) for said in questions)
    told = {(agent, answer) for pattern in patterns for agent, answer in pattern}
    agents = sorted({agent for agent, _ in told})
    known: dict[str, Confusion] = {}
    for _ in range(MOST_ROUNDS):
        logs = {(agent, answer): log_chances(known.get(agent), options, answer) for agent, answer in told}
        sums = {agent: [0.0] * (options * options) for agent in agents}
        for pattern, times in patterns.items():
            added = [times * chance for chance in _normalised([logs[each] for each in pattern])]
            for agent, answer in pattern:
                total = sums[agent]
                for place, more in zip(range(answer, options * options, options), added, strict=True):
                    total[place] += more
        before, known = known, {agent: tuple(total) for agent, total in sums.items()}
        if before and all(math.dist(before[agent], known[agent]) < _SETTLED_WITHIN for agent in known):
            break
    return known
