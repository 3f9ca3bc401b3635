"""The result of a statistic: an estimate, a test or a size of effect, each with its n and a note."""

from __future__ import annotations

from dataclasses import dataclass

Interval = tuple[float, float]

CONFIDENCE = 0.95


@dataclass(frozen=True)
class Estimate:
    """A value and how far it can be trusted.

    `interval` is None where the data say nothing of the spread. `n` is the number of questions.
    `note` says what a reader of the number must know, and is empty if there is nothing.
    """

    value: float
    interval: Interval | None
    method: str
    n: int
    confidence: float = CONFIDENCE
    standard_error: float | None = None
    note: str = ""


@dataclass(frozen=True)
class Significance:
    """What a two-sided test says; `p` is always in [0, 1], and 1 where the data cannot tell.

    `statistic` is the test's own (None where there is none), `n` the number of questions.
    """

    test: str
    p: float
    n: int
    statistic: float | None
    note: str = ""


@dataclass(frozen=True)
class Effect:
    """How large a difference is, in [-1, 1]: positive if the first is greater; over `n` questions."""

    measure: str
    value: float
    n: int
    note: str = ""
