"""How probable it is that the members who are left would change a decision. Pure.

The model is that of all votes with optimal weights: one answer is the one to give; member i says it with
probability x_i, its accuracy, and each of the K - 1 others with `(1 - x_i) / (K - 1)`, whatever the others
say. After votes a_i the answer t is the one to give with the posterior probability

    P(t | votes) ~ prod_i P(a_i | t)

(the confidence of CGES, 2025, arXiv:2511.02603), and given t the votes that are left are independent. So the
distribution of the leader's lead over a rival, when all have voted, is a convolution; it is overtaken where
that lead is below 0, or 0 and the lot the rival's:

    P(changed | votes) <= sum_t P(t | votes) sum_r P(lead over r is lost | t)

Adaptive-Consistency (Aggarwal et al. 2023, arXiv:2305.11860) asks the same of samples of one model that
could be drawn for ever, with an unknown distribution of answers; here the voters are few, and differ. As
there, what is not known is averaged over: members of whom nothing is known share one accuracy, each value
between chance and 1 equally probable beforehand.

Members that err together, more often than accuracies tell, make the true probability greater than this one.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

from services.aggregator.effort.scoring import UNSEEN, Scoring, Standing
from services.aggregator.effort.settled import lead, wins_tie
from services.aggregator.strategies.accuracy import smoothed_accuracy
from services.aggregator.strategies.ballot import Ballot, StrategyContext
from services.aggregator.strategies.log_odds import never_certain
from services.aggregator.strategies.votes.ow_l import fit_accuracies
from services.aggregator.strategies.votes.topic import topic_accuracy

SHARED_ACCURACIES = 9
"""How many values stand for the accuracy of members of whom nothing is known."""
STEPS = 64
"""In so many steps the greatest vote is counted; what lies between goes to the rival."""
_TIE = 1e-9

Votes = Sequence[tuple[str, str]]
"""Who has said what."""


def known_accuracies(
    members: Sequence[str], context: StrategyContext, options: int
) -> dict[str, float | None]:
    """How often each member is right on this topic: from feedback, else fitted to agreement, else None."""
    fitted: dict[str, float] | None = None
    known: dict[str, float | None] = {}
    for member in members:
        history = context.history_of(member)
        if history.asked:
            x = topic_accuracy(context.topic_history_of(member), smoothed_accuracy(history, options))
            known[member] = never_certain(x)
            continue
        if fitted is None:
            fitted = fit_accuracies(context.agreement, options) if context.agreement else {}
        known[member] = never_certain(fitted[member]) if member in fitted else None
    return known


def chance_of_change(
    way: Scoring,
    leader: str,
    standing: Standing,
    accuracies: Mapping[str, float | None],
    options: int,
    seed: str,
    limit: float = 1.0,
) -> float:
    """How probable it is, at most, that the leader is overtaken when all who are left have voted by `way`.

    `options` is K, the number of answers that there are, given or not. What is more than `limit` need not be
    all of it.
    """
    named = [answer for answer in way.candidates if answer != UNSEEN]
    many = max(options, len(named) + (UNSEEN in way.candidates))
    worlds = list(_worlds(named, standing.votes, accuracies, many))
    voters = way.voters[: way.at_most]
    known: dict[tuple[object, ...], float] = {}

    def lost(world: _World, rival: str, start: float, tie_lost: bool) -> float:
        if not way.alike:
            return _lost(way, leader, rival, voters, world, start, tie_lost)
        role = {leader: 1, rival: -1}.get(world.truth or "", 0)
        key = (role, id(world.accuracies), start, tie_lost)
        if key not in known:
            known[key] = _lost(way, leader, rival, voters, world, start, tie_lost)
        return known[key]

    total = 0.0
    leads = {rival: lead(way, leader, rival, standing.votes) for rival in way.candidates if rival != leader}
    for rival, start in sorted(leads.items(), key=lambda item: item[1]):
        if total > limit:
            break
        tie_lost = not wins_tie(leader, rival, seed)
        many = worlds[0].unseen if rival == UNSEEN else 1
        merged = _merged(worlds, leader, rival) if way.alike else worlds
        total += many * math.fsum(world.weight * lost(world, rival, start, tie_lost) for world in merged)
    return min(1.0, total)


def chance_right(
    answer: str | None, ballots: Sequence[Ballot], accuracies: Mapping[str, float | None], options: int
) -> float:
    """How probable it is that an answer is the one to give, after these ballots; 0 of no answer.

    It is as good as the accuracies are, and too great where agents err together.
    """
    return chances_right((answer,), ballots, accuracies, options)[answer]


def chances_right(
    answers: Iterable[str | None],
    ballots: Sequence[Ballot],
    accuracies: Mapping[str, float | None],
    options: int,
) -> dict[str | None, float]:
    """The same of several answers."""
    votes = Standing(tuple(ballots), (), 0).votes
    given = dict.fromkeys(said for _, said in votes)
    known: dict[str, float] = {}
    chances: dict[str | None, float] = {}
    for answer in answers:
        if answer is None:
            chances[answer] = 0.0
        elif answer in given:  # one posterior has those of all answers that were given
            known = known or _posterior(tuple(given), votes, accuracies, options)
            chances[answer] = known[answer]
        else:
            chances[answer] = _posterior((answer, *given), votes, accuracies, options)[answer]
    return chances


def _posterior(
    named: Sequence[str], votes: Votes, accuracies: Mapping[str, float | None], options: int
) -> dict[str, float]:
    """How probable it is of each of these answers that it is the one to give."""
    worlds = list(_worlds(named, votes, accuracies, max(options, len(named))))
    return {
        answer: min(1.0, math.fsum([world.weight for world in worlds if world.truth == answer]))
        for answer in named
    }


class _World(NamedTuple):
    """What may be true: the answer to give, the accuracies, and how probable both are.

    `truth` is UNSEEN where it is the very answer that UNSEEN stands for, and None where it is another that
    nobody has given. There are `options` answers, of which `unseen` have no name.
    """

    truth: str | None
    accuracies: Mapping[str, float]
    options: int
    unseen: int
    weight: float

    def chance(self, agent: str, said: str | None) -> float:
        """How probable it is that an agent says this one answer."""
        x = self.accuracies[agent]
        return x if said is not None and said == self.truth else (1 - x) / (self.options - 1)


def _worlds(
    named: Sequence[str], votes: Votes, accuracies: Mapping[str, float | None], options: int
) -> Iterator[_World]:
    unseen = options - len(named)
    truths: list[tuple[str | None, int]] = [(answer, 1) for answer in named]
    if unseen:
        truths += [(UNSEEN, 1), (None, unseen - 1)]
    found: list[tuple[str | None, Mapping[str, float], float]] = []
    for each in _filled(accuracies, options):
        said = [(answer, each[agent], (1 - each[agent]) / (options - 1)) for agent, answer in votes]
        for truth, many in truths:
            weight = many * math.prod([hit if answer == truth else miss for answer, hit, miss in said])
            found.append((truth, each, weight))
    total = math.fsum([weight for _, _, weight in found])
    for truth, each, weight in found:
        if weight:
            yield _World(truth, each, options, unseen, weight / total)


def _filled(accuracies: Mapping[str, float | None], options: int) -> Iterator[Mapping[str, float]]:
    """The accuracies, with each value that those may share that are not known."""
    if all(x is not None for x in accuracies.values()):
        yield {agent: x for agent, x in accuracies.items() if x is not None}
        return
    chance = 1 / options
    for step in range(SHARED_ACCURACIES):
        shared = chance + (1 - chance) * (step + 0.5) / SHARED_ACCURACIES
        yield {agent: shared if x is None else x for agent, x in accuracies.items()}


def _merged(worlds: Sequence[_World], leader: str, rival: str) -> list[_World]:
    """Worlds that are the same to these two answers, as one."""
    merged: dict[tuple[str | None, int], _World] = {}
    for world in worlds:
        truth = world.truth if world.truth in (leader, rival) else None
        key = (truth, id(world.accuracies))
        before = merged[key].weight if key in merged else 0.0
        merged[key] = _World(truth, world.accuracies, world.options, world.unseen, before + world.weight)
    return list(merged.values())


def _lost(
    way: Scoring,
    leader: str,
    rival: str,
    voters: Sequence[str],
    world: _World,
    start: float,
    tie_lost: bool,
) -> float:
    """How probable it is, in one world, that a lead that is `start` now is lost to the rival."""
    votes = [_changes(way, leader, rival, agent, world) for agent in voters]
    greatest = max((abs(change) for vote in votes for change, _ in vote), default=0.0)
    unit = greatest / STEPS or 1.0
    leads = {0: 1.0}
    for vote in votes:
        after: dict[int, float] = {}
        for steps, chance in leads.items():
            for change, probable in vote:
                to = steps + math.floor(change / unit + _TIE)
                after[to] = after.get(to, 0.0) + chance * probable
        leads = after
    lost = 0.0
    for steps, chance in leads.items():
        left = start + steps * unit
        if left < -_TIE or (tie_lost and left <= _TIE):
            lost += chance
    return lost


def _changes(way: Scoring, leader: str, rival: str, agent: str, world: _World) -> list[tuple[float, float]]:
    """By how much an agent's vote changes the lead, and how probable that is."""
    if way.alike:
        own, others = world.chance(agent, leader), world.chance(agent, rival)
        weight = way.gain(agent, leader, leader)
        return [(weight, own), (-weight, others), (0.0, max(0.0, 1 - own - others))]
    return [
        (way.gain(agent, said, leader) - way.gain(agent, said, rival), world.chance(agent, said))
        for said in way.candidates
    ]
