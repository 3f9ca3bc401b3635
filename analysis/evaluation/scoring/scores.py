"""Outcomes as arrays: for each contestant its questions in one order, so that all can be compared in pairs.

The unit is the question: a question's score is the mean over its repetitions. What fell by lot is scored with
its expected value over lots, so that no difference between two strategies is one between two lots.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from analysis.evaluation.contestants.outcome import Group, Outcome
from analysis.statistics.checks import Booleans, Floats
from analysis.statistics.questions import Questions, fold

OVERALL = "all"
"""The name under which all benchmarks together stand."""


@dataclass(frozen=True)
class Contestant:
    """One contestant's outcomes on one benchmark (or all), and its scores by question."""

    name: str
    group: Group
    outcomes: tuple[Outcome, ...]
    questions: Questions

    @property
    def means(self) -> Floats:
        """The mean score of each question."""
        return self.questions.means()

    @property
    def first_right(self) -> Booleans:
        """Whether the decision of each question's first repetition is right, as its lot fell.

        For tests that need a yes or a no: they see one repetition, and the primary test sees all.
        """
        starts = np.cumsum((0, *self.questions.repetitions[:-1]))
        right: Booleans = np.array([self.outcomes[start].right for start in starts])
        return right

    @property
    def decisions(self) -> tuple[tuple[str | None, float], ...]:
        """What it decided on every sample, and with what chance that was right."""
        return tuple((outcome.answer, outcome.expected) for outcome in self.outcomes)

    @property
    def topics(self) -> tuple[str, ...]:
        """The topic of each question, by benchmark: clusters coarser than a question."""
        return tuple(
            {f"{o.benchmark}/{o.question_id}": f"{o.benchmark}/{o.topic}" for o in self.outcomes}.values()
        )

    @property
    def templates(self) -> tuple[str, ...]:
        """What each question was made from; of one that does not say so, itself."""
        return tuple(
            {
                f"{o.benchmark}/{o.question_id}": f"{o.benchmark}/{o.template or o.question_id}"
                for o in self.outcomes
            }.values()
        )


@dataclass(frozen=True)
class Field:
    """All contestants on one benchmark, on the same questions in the same order."""

    benchmark: str
    contestants: tuple[Contestant, ...]

    @property
    def n_questions(self) -> int:
        """The n of all statistics."""
        return self.contestants[0].questions.n

    def of(self, *groups: Group) -> tuple[Contestant, ...]:
        """The contestants of these groups."""
        return tuple(each for each in self.contestants if each.group in groups)

    def named(self, name: str) -> Contestant | None:
        """The contestant of that name, if it takes part."""
        return next((each for each in self.contestants if each.name == name), None)


def fields(outcomes: Sequence[Outcome]) -> list[Field]:
    """A field for each benchmark, and one for all of them together where there are several."""
    names = list(dict.fromkeys(outcome.benchmark for outcome in outcomes))
    each = [field(name, [o for o in outcomes if o.benchmark == name]) for name in names]
    return [*each, field(OVERALL, outcomes)]


def field(benchmark: str, outcomes: Iterable[Outcome]) -> Field:
    """The contestants among `outcomes`, in the order in which they come.

    Who has not been asked all questions is left out: it could not be compared.
    """
    by_name: dict[str, list[Outcome]] = {}
    for outcome in outcomes:
        by_name.setdefault(outcome.contestant, []).append(outcome)
    longest = max(len(of_one) for of_one in by_name.values())
    return Field(
        benchmark,
        tuple(_contestant(name, of_one) for name, of_one in by_name.items() if len(of_one) == longest),
    )


def _contestant(name: str, outcomes: list[Outcome]) -> Contestant:
    ordered = sorted(outcomes, key=lambda o: (o.benchmark, o.question_id, o.repetition))
    samples = ((f"{o.benchmark}/{o.question_id}", o.expected) for o in ordered)
    return Contestant(name, ordered[0].group, tuple(ordered), fold(samples))


def agreement_rates(outcomes: Sequence[Contestant]) -> Floats:
    """How often each two contestants gave the same answer, of the questions that both answered.

    A square table; NaN for two that never answered the same question.
    """
    count = len(outcomes)
    rates = np.full((count, count), np.nan)
    given = [[outcome.answer for outcome in each.outcomes] for each in outcomes]
    for i, one in enumerate(given):
        for j, other in enumerate(given):
            both = [(a, b) for a, b in zip(one, other, strict=True) if a is not None and b is not None]
            if both:
                rates[i, j] = sum(a == b for a, b in both) / len(both)
    return rates
