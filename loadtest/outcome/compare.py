"""Compares two runs: how far B's figures are from A's, with intervals.

Latencies of one run are not independent of one another: requests of the same second share a queue. So
whole seconds are resampled, not requests (block bootstrap; Kuensch 1989), and a difference is called one
only if its 95 % percentile interval leaves out 0.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from loadtest.faults import WrongOption
from loadtest.outcome.measurements import Column, Measurements, read_records
from loadtest.outcome.outputs import REQUESTS

REPLICATES = 1_000
LEAST_BLOCKS = 5
PERCENTILES = {"p50": 0.50, "p95": 0.95, "p99": 0.99}

Value = Callable[[Measurements], Column]

COMPARED: dict[str, Value] = {
    "ttft_intended": lambda m: np.asarray((m.first_s - m.intended_s) * 1000),
    "e2e_intended": lambda m: np.asarray((m.done_s - m.intended_s) * 1000),
}


@dataclass(frozen=True, slots=True)
class Difference:
    """A figure of two runs in ms; `low` to `high` is the 95 % interval of `b - a`."""

    name: str
    a: float
    b: float
    low: float
    high: float

    @property
    def tied(self) -> bool:
        """Whether they may as well be the same."""
        return self.low <= 0 <= self.high


def read_run(folder: Path) -> Measurements:
    """The requests of a run; WrongOption for a folder without them."""
    path = folder / REQUESTS
    if not path.is_file():
        raise WrongOption(f"{folder} is not the folder of a load test: there is no {REQUESTS} in it")
    return read_records([path])


def compare(a: Measurements, b: Measurements, seed: int = 0) -> list[Difference]:
    """Mean and percentiles of latency. WrongOption for a run of too few seconds to say how much it varies."""
    rng = np.random.default_rng(seed)
    found = []
    for name, value in COMPARED.items():
        one, other = (_Resampled.of(m, value, rng) for m in (a, b))
        if one is None or other is None:
            continue
        for statistic in ("mean", *PERCENTILES):
            gaps = other.replicates[statistic] - one.replicates[statistic]
            low, high = np.percentile(gaps, (2.5, 97.5))
            figures = one.observed[statistic], other.observed[statistic]
            found.append(Difference(f"{name}.{statistic}", *figures, float(low), float(high)))
    if not found:
        raise WrongOption(f"both runs need answers from at least {LEAST_BLOCKS} different seconds")
    return found


@dataclass(frozen=True)
class _Resampled:
    """A run's statistics, and those of its replicates."""

    observed: dict[str, float]
    replicates: dict[str, Column]

    @classmethod
    def of(cls, m: Measurements, value: Value, rng: np.random.Generator) -> _Resampled | None:
        good = m.where(m.good)
        values = value(good)
        known = ~np.isnan(values)
        values, seconds = values[known], np.floor(good.intended_s[known])
        blocks, block_of = np.unique(seconds, return_inverse=True)
        if len(blocks) < LEAST_BLOCKS:
            return None
        order = np.argsort(values)
        values, block_of = values[order], block_of[order]
        drawn = [_statistics(values, _counts(len(blocks), rng)[block_of]) for _ in range(REPLICATES)]
        observed = _statistics(values, np.ones(len(values)))
        return cls(observed, {name: np.array([one[name] for one in drawn]) for name in observed})


def _counts(blocks: int, rng: np.random.Generator) -> Column:
    """How often each block is drawn when as many are drawn as there are."""
    return np.bincount(rng.integers(0, blocks, blocks), minlength=blocks)


def _statistics(ordered: Column, weights: Column) -> dict[str, float]:
    """Weighted mean, and percentiles as the smallest value that so much of the weight does not exceed."""
    reached = np.cumsum(weights)
    places = {name: int(np.searchsorted(reached, share * reached[-1])) for name, share in PERCENTILES.items()}
    mean = float(np.dot(ordered, weights) / reached[-1])
    return {"mean": mean, **{name: float(ordered[place]) for name, place in places.items()}}
