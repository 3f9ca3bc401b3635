"""The waves of a cascade over kept answers: how many its members need, and what they spare."""

from __future__ import annotations

import random

from analysis.evaluation.effort.replayed import replayed
from services.aggregator.effort.rule import Rule
from services.aggregator.scores.history import AgentHistory
from services.aggregator.strategies.ballot import Ballot, StrategyContext

ACCURACIES = (0.9, 0.8, 0.75, 0.7, 0.85, 0.65, 0.8, 0.6, 0.7)
FOUND_RIGHT = (35, 29, 25, 28, 38, 30, 31, 19, 28)
"""So many of the answers that were judged, as one draw of them has it."""
JUDGED, QUESTIONS, LETTERS = 40, 100, "ABCD"


def test_members_that_often_disagree_need_less_than_half_a_wave_more_than_one_and_calls_are_saved() -> None:
    """Also where a change is only improbable: no wave is asked whose answers are hardly ever enough."""
    for count in (5, 9):
        exact_waves, exact_calls = _tried(count, None)
        assert exact_waves <= 1.5, (count, exact_waves)
        assert exact_calls < 0.85 * count, (count, exact_calls)
        waves, calls = _tried(count, 0.05)
        assert waves <= 1.4, (count, waves)
        assert calls < 0.55 * count, (count, calls)


def _tried(count: int, epsilon: float | None) -> tuple[float, float]:
    """The waves and the calls of a question, on average."""
    dice = random.Random(3)
    known = {f"m{n}": x for n, x in enumerate(ACCURACIES[:count])}
    history = {name: AgentHistory(right, JUDGED) for name, right in zip(known, FOUND_RIGHT, strict=False)}
    waves = calls = 0
    for number in range(QUESTIONS):
        context = StrategyContext(
            seed=f"s{number}", options=len(LETTERS), history=history, topic_history=history
        )
        rule = Rule(("majority",), tuple(known), context, epsilon)
        said = {name: _ballot(dice, name, x) for name, x in known.items()}
        cascade = replayed(rule, said)
        if epsilon is None:
            assert cascade.answer == rule.decide(list(said.values()))[0].answer
        waves, calls = waves + len(cascade.waves), calls + len(cascade.asked)
    return waves / QUESTIONS, calls / QUESTIONS


def _ballot(dice: random.Random, name: str, accuracy: float) -> Ballot:
    """A is right; who errs says any other letter."""
    letter = "A" if dice.random() < accuracy else dice.choice(LETTERS[1:])
    return Ballot(name, letter, letter)
