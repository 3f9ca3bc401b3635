"""Questions from samples: repetitions of a question are one cluster, and the question is the unit."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from analysis.statistics.checks import Floats, scores
from schemas.errors import InvalidRequest


@dataclass(frozen=True, eq=False)
class Questions:
    """The scores of every repetition of every question.

    `ids` has each question once, in the order in which they came. `samples` has all scores, question
    after question, and `repetitions` how many of them each question has.
    """

    ids: tuple[str, ...]
    samples: Floats
    repetitions: tuple[int, ...]

    @property
    def n(self) -> int:
        """The number of questions: the n of every statistic."""
        return len(self.ids)

    @property
    def n_samples(self) -> int:
        """The number of scores, repetitions included."""
        return int(self.samples.size)

    def means(self) -> Floats:
        """The mean score of each question."""
        return self.sums_of(self.samples) / np.asarray(self.repetitions, dtype=np.float64)

    def sums_of(self, values: Floats) -> Floats:
        """The sum over each question of values that are given one for each sample."""
        starts = np.cumsum((0, *self.repetitions[:-1]))
        return np.add.reduceat(values, starts)


def fold(samples: Iterable[tuple[str, float]]) -> Questions:
    """Questions from (question id, score) of every sample, in any order; InvalidRequest if there is none."""
    by_question: dict[str, list[float]] = {}
    for question, score in samples:
        by_question.setdefault(question, []).append(score)
    flat = [score for repetitions in by_question.values() for score in repetitions]
    return Questions(
        ids=tuple(by_question),
        samples=scores(flat, "samples"),
        repetitions=tuple(len(repetitions) for repetitions in by_question.values()),
    )


def align(one: Questions, other: Questions) -> Questions:
    """`other` with its questions in the order of `one`; InvalidRequest if they are not the same questions."""
    unpaired = set(one.ids).symmetric_difference(other.ids)
    if unpaired:
        raise InvalidRequest(
            f"other: {len(unpaired)} questions stand on one side only, {min(unpaired)!r} is one of them",
            field="other",
        )
    scores_of = dict(zip(other.ids, np.split(other.samples, np.cumsum(other.repetitions)[:-1]), strict=True))
    return fold((question, float(score)) for question in one.ids for score in scores_of[question])
