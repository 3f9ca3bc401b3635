"""Objectives: what a request has to meet to count as goodput, and what makes a run fail."""

from __future__ import annotations

import math
import operator
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np

from loadtest.faults import WrongOption
from loadtest.outcome.measurements import Column, Measurements
from loadtest.outcome.summary import STATISTICS, Summary

PER_REQUEST = ("ttft", "ttft_intended", "tpot", "e2e", "e2e_intended")
COUNTS = ("failed", "lost", "doubled", "error_rate", "goodput", "goodput_share", "rate", "tokens_per_s")
COMPARISONS: dict[str, Callable[[float, float], bool]] = {
    ">=": operator.ge,
    "<=": operator.le,
    ">": operator.gt,
    "<": operator.lt,
}
CONDITION = re.compile(r"\s*([a-z0-9_.]+)\s*(>=|<=|>|<)\s*([0-9.eE+-]+)\s*")


@dataclass(frozen=True, slots=True)
class Objective:
    """A request meets it if its `metric` is at most `limit_ms`."""

    metric: str
    limit_ms: float


def parse_objectives(texts: Iterable[str]) -> tuple[Objective, ...]:
    """`ttft:300`, `e2e:2000` ...; WrongOption says what cannot be read."""
    return tuple(_objective(text) for text in " ".join(texts).replace(",", " ").split())


def _objective(text: str) -> Objective:
    metric, _, limit = text.partition(":")
    if metric not in PER_REQUEST:
        raise WrongOption(f"--goodput {text}: METRIC:MILLISECONDS, with one of {', '.join(PER_REQUEST)}")
    return Objective(metric, _number(limit, f"--goodput {text}"))


def _number(text: str, option: str) -> float:
    try:
        value = float(text)
    except ValueError as error:
        raise WrongOption(f"{option}: {text!r} is not a number") from error
    if not (math.isfinite(value) and value >= 0):
        raise WrongOption(f"{option}: the limit has to be a number from 0 on")
    return value


def meets(m: Measurements, objectives: Iterable[Objective]) -> Column:
    """Which requests were answered and met every objective; what was not measured is not met."""
    met = m.good.copy()
    for objective in objectives:
        with np.errstate(invalid="ignore"):
            met &= _each(m, objective.metric) <= objective.limit_ms
    return met


def _each(m: Measurements, metric: str) -> Column:
    """A metric of every request, nan where there is none."""
    begun = m.intended_s if metric.endswith("_intended") else m.sent_s
    if metric.startswith("e2e"):
        return np.asarray((m.done_s - begun) * 1000)
    if metric.startswith("ttft"):
        return np.asarray((m.first_s - begun) * 1000)
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(m.tokens > 1, (m.done_s - m.first_s) * 1000 / (m.tokens - 1), np.nan)


@dataclass(frozen=True, slots=True)
class Condition:
    """The run fails if `figure` `comparison` `limit` holds: `e2e.p99 > 2000`, `lost > 0`."""

    figure: str
    comparison: str
    limit: float

    def __str__(self) -> str:
        return f"{self.figure} {self.comparison} {self.limit:g}"

    def holds(self, summary: Summary) -> bool:
        """Whether it came to that; a figure that was not measured counts as missed."""
        value = summary.figure(self.figure)
        return value is None or COMPARISONS[self.comparison](value, self.limit)


def parse_conditions(texts: Iterable[str]) -> tuple[Condition, ...]:
    """The conditions of `--fail-if`; WrongOption says what cannot be read, and what there is."""
    return tuple(_condition(text) for text in texts)


def _condition(text: str) -> Condition:
    found = CONDITION.fullmatch(text)
    if found is None:
        raise WrongOption(f"--fail-if {text!r}: FIGURE<LIMIT or FIGURE>LIMIT, such as 'e2e.p99>2000'")
    figure, comparison, limit = found.groups()
    metric, _, statistic = figure.partition(".")
    known = figure in COUNTS or (metric in (*PER_REQUEST, "itl", "lag") and statistic in STATISTICS)
    if not known:
        raise WrongOption(
            f"--fail-if {text!r}: there is no {figure}; there are {', '.join(COUNTS)}, and "
            f"{'|'.join((*PER_REQUEST, 'itl', 'lag'))} with .{'|.'.join(STATISTICS)}"
        )
    return Condition(figure, comparison, _number(limit, f"--fail-if {text!r}"))
