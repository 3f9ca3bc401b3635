"""The waves of a cascade over kept answers: how many its members need, and what they spare."""

from __future__ import annotations

import random

from analysis.evaluation.effort.replayed import replayed
from services.aggregator.effort.rule import Rule
from services.aggregator.scores.history import AgentHistory
from services.aggregator.strategies.ballot import Ballot, StrategyContext

ACCURACIES = (0.9, 0.8, 0.75, 0.7, 0.85, 0.65, 0.8, 0.6, 0.7)
JUDGED, QUESTIONS, LETTERS = 40, 100, "ABCD"


def test_members_that_often_disagree_need_half_a_wave_more_than_one_at_most_and_calls_are_saved() -> None:
    for count in (5, 9):
        dice = random.Random(3)
        known = {f"m{n}": x for n, x in enumerate(ACCURACIES[:count])}
        history = {name: AgentHistory(correct=round(JUDGED * x), asked=JUDGED) for name, x in known.items()}
        waves = calls = 0
        for number in range(QUESTIONS):
            context = StrategyContext(seed=f"s{number}", options=len(LETTERS), history=history)
            rule = Rule(("majority",), tuple(known), context)
            said = {name: _ballot(dice, name, x) for name, x in known.items()}
            cascade = replayed(rule, said)
            assert cascade.answer == rule.decide(list(said.values()))[0].answer
            waves, calls = waves + len(cascade.waves), calls + len(cascade.asked)
        assert waves <= 1.5 * QUESTIONS, (count, waves)
        assert calls < 0.85 * count * QUESTIONS, (count, calls)


def _ballot(dice: random.Random, name: str, accuracy: float) -> Ballot:
    """A is right; who errs says any other letter."""
    letter = "A" if dice.random() < accuracy else dice.choice(LETTERS[1:])
    return Ballot(name, letter, letter)
