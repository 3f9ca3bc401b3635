"""One cascade over kept answers: who would have been asked, and what would have been decided. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from services.aggregator.effort.rule import Rule
from services.aggregator.effort.scoring import Standing
from services.aggregator.strategies import Ballot


class Replayed(NamedTuple):
    """Who was asked, wave by wave; what the first strategy decided; how probable a change was, at most."""

    waves: tuple[tuple[str, ...], ...]
    answer: str | None
    bound: float

    @property
    def asked(self) -> frozenset[str]:
        """All who were asked."""
        return frozenset(member for wave in self.waves for member in wave)


def replayed(rule: Rule, said: Mapping[str, Ballot]) -> Replayed:
    """The cascade of `rule` where its members say what they `said`; who is not in it fails when it is asked.

    Each wave is waited for as a whole. A live one may stop in the middle of a wave, and ask no fewer.
    """
    order = rule.order()
    waves: list[tuple[str, ...]] = []
    while True:
        asked = {member for wave in waves for member in wave}
        unasked = tuple(member for member in order if member not in asked)
        ballots = tuple(said[member] for member in rule.members if member in asked and member in said)
        standing = Standing(ballots, unasked, len(unasked))
        bound = rule.enough(standing) if waves else None
        if bound is not None:
            return Replayed(tuple(waves), rule.decide(ballots)[0].answer, bound)
        waves.append(rule.next_wave(standing, unasked, len(waves) + 1))
