"""Whom a cascade asks, when that is enough and what it decides: from raw records, by looking at every way in
which those who are left could answer.

Of closed questions and votes whose weights depend on nothing that is left to be said.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import product

from analysis.evaluation.tests.second.decisions import LETTERS, Known, Question, bounded, topic_accuracy
from analysis.evaluation.tests.second.further import fitted

PROBABLY, FURTHER_WAVES, MOST_WAVES = 0.5, 0.45, 3
LEAST_WEIGHT, FEWEST_JUDGED, SHARED = 0.1, 10, 9
Votes = Mapping[str, str]


@dataclass
class Cascade:
    """One question, its members in their order, and what each vote weighs."""

    question: Question
    known: Known
    members: tuple[str, ...]
    by_accuracy: bool
    epsilon: float | None
    waves: list[tuple[str, ...]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.options = LETTERS[: self.question.options]
        x = fitted(self.question, self.known)
        self.accuracy: dict[str, float | None] = {}
        for agent in self.members:
            if self.known.judged[agent]:
                self.accuracy[agent] = bounded(topic_accuracy(agent, self.question, self.known))
            else:
                self.accuracy[agent] = bounded(x[agent]) if agent in x else None
        k = len(self.options)
        known = [max(LEAST_WEIGHT, _log_odds(at, k)) for at in self.accuracy.values() if at is not None]
        usual = sum(known) / len(known) if known else 1.0
        worth = {
            agent: usual if at is None else max(LEAST_WEIGHT, _log_odds(at, k))
            for agent, at in self.accuracy.items()
        }
        self.order = sorted(self.members, key=lambda agent: -worth[agent])
        self.weight = dict.fromkeys(self.members, 1.0)
        if self.by_accuracy and any(self.known.judged[agent] for agent in self.members):
            self.weight = {
                agent: _log_odds(bounded(topic_accuracy(agent, self.question, self.known)), k)
                for agent in self.members
            }

    def run(self) -> str | None:
        """Asks wave after wave; the decision."""
        asked: list[str] = []
        while True:
            votes = {agent: self.question.said[agent] for agent in asked if agent in self.question.said}
            left = [agent for agent in self.order if agent not in asked]
            if self.waves and self.enough(votes, left):
                return self.winner(votes)
            wave = self._next(votes, left)
            self.waves.append(tuple(wave))
            asked += wave

    def winner(self, votes: Votes) -> str | None:
        if not votes:
            return None
        scores = self._scores(votes)
        most = max(scores.values())
        first = [a for a, score in scores.items() if abs(score - most) <= 1e-9]
        return min(first, key=self.lot)

    def lot(self, answer: str) -> bytes:
        return hashlib.sha256(f"{self.question.lots}\n{answer}".encode()).digest()

    def _scores(self, votes: Votes) -> dict[str, float]:
        scores: dict[str, float] = {}
        for agent, said in votes.items():
            scores[said] = scores.get(said, 0.0) + self.weight[agent]
        return scores

    def enough(self, votes: Votes, left: Sequence[str]) -> bool:
        """Whether nobody who is left can change the decision, or only with a chance of `epsilon`."""
        if not left:
            return True
        leader = self.winner(votes)
        if leader is None:
            return False
        if not any(self._lost(votes, left, said, leader) for said in product(self.options, repeat=len(left))):
            return True
        return self.epsilon is not None and self._chance(votes, left, leader) <= self.epsilon

    def _lost(self, votes: Votes, left: Sequence[str], said: Sequence[str], leader: str) -> bool:
        return bool(self._rivals(votes, left, said, leader))

    def _rivals(self, votes: Votes, left: Sequence[str], said: Sequence[str], leader: str) -> int:
        """How many answers are before the leader if those who are left say this."""
        scores = self._scores({**votes, **dict(zip(left, said, strict=True))})
        own = scores.get(leader, 0.0)
        before = 0
        for rival in self.options:
            other = scores.get(rival, 0.0)
            tie = abs(other - own) <= 1e-9
            before += rival != leader and (self.lot(rival) < self.lot(leader) if tie else other > own)
        return before

    def _chance(self, votes: Votes, left: Sequence[str], leader: str) -> float:
        """At most: the sum over rivals of the probability that each is before the leader."""
        total, lost = 0.0, 0.0
        unknown = None in self.accuracy.values()
        k = len(self.options)
        for step in range(SHARED if unknown else 1):
            shared = 1 / k + (1 - 1 / k) * (step + 0.5) / SHARED
            x = {agent: shared if at is None else at for agent, at in self.accuracy.items()}
            for truth in self.options:

                def says(agent: str, said: str, truth: str = truth, x: Mapping[str, float] = x) -> float:
                    return x[agent] if said == truth else (1 - x[agent]) / (k - 1)

                weight = math.prod(says(agent, said) for agent, said in votes.items())
                total += weight
                for rest in product(self.options, repeat=len(left)):
                    chance = math.prod(says(agent, said) for agent, said in zip(left, rest, strict=True))
                    lost += weight * chance * self._rivals(votes, left, rest, leader)
        return lost / total

    def _next(self, votes: Votes, left: Sequence[str]) -> list[str]:
        if len(self.waves) + 1 >= MOST_WAVES:
            return list(left)
        needed = PROBABLY
        if self.waves:
            failed = 1 - self._probably_enough({}, self.order, self.waves[0])
            needed = max(PROBABLY, 2 - FURTHER_WAVES / failed if failed else 0.0)
        for count in range(1, len(left)):
            if needed < 1 and self._probably_enough(votes, left, left[:count]) > needed:
                return list(left[:count])
        return list(left)

    def _probably_enough(self, votes: Votes, left: Sequence[str], wave: Sequence[str]) -> float:
        """Over all sets of who may err. As many as err are taken to be the last of the wave; what is enough
        with more errors than are too many is not counted: all who err would have to say the same."""
        by_lot = sorted(self.options, key=self.lot)
        leader = self.winner(votes)
        pairs = [(by_lot[-1], by_lot[0]), (by_lot[0], by_lot[-1])]
        if leader is not None:
            scores = self._scores(votes)
            ranked = sorted(scores, key=lambda answer: (-scores[answer], answer))
            pairs = [(leader, next(answer for answer in (*ranked, *by_lot) if answer != leader))]
        rest = [agent for agent in left if agent not in wave]
        err = [self._errs(agent) for agent in wave]
        total = 0.0
        for first, second in pairs:
            few_enough = 0
            while few_enough <= len(wave):
                said = [first] * (len(wave) - few_enough) + [second] * few_enough
                if not self.enough({**votes, **dict(zip(wave, said, strict=True))}, rest):
                    break
                few_enough += 1
            for which in product((False, True), repeat=len(wave)):
                if sum(which) < few_enough:
                    chances = (e if errs else 1 - e for e, errs in zip(err, which, strict=True))
                    total += math.prod(chances) / len(pairs)
        return total

    def _errs(self, agent: str) -> float:
        x = self.accuracy[agent]
        return 1 - x if x is not None and self.known.judged[agent] >= FEWEST_JUDGED else 0.0


def _log_odds(x: float, options: int) -> float:
    return math.log((options - 1) * x / (1 - x))
