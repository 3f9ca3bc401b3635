"""Arrival processes: endless streams of seconds from the start of the run at which requests begin.

Each is one function in the table `ARRIVALS`. All are driven by a seeded generator, so that a run can be
repeated request for request.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from loadtest.faults import WrongOption

BLOCK = 1024


@dataclass(frozen=True, slots=True)
class Rate:
    """Requests per second. `burstiness` is the shape of gamma arrivals; `ramp_to` and `ramp_s` where a ramp
    leads, and in how many seconds."""

    per_s: float
    burstiness: float = 1.0
    ramp_to: float | None = None
    ramp_s: float = 60.0

    def __post_init__(self) -> None:
        _require_positive("rate", self.per_s)
        _require_positive("burstiness", self.burstiness)
        _require_positive("duration", self.ramp_s)
        if self.ramp_to is not None:
            _require_positive("ramp-to", self.ramp_to)


def _require_positive(name: str, value: float) -> None:
    if not (math.isfinite(value) and value > 0):
        raise WrongOption(f"--{name} is {value:g}: it has to be a number above 0")


def constant(rate: Rate, _rng: np.random.Generator) -> Iterator[float]:
    """Equal gaps of 1/rate."""
    number = 0
    while True:
        yield number / rate.per_s
        number += 1


def poisson(rate: Rate, rng: np.random.Generator) -> Iterator[float]:
    """Independent users: exponential gaps with mean 1/rate."""
    return _cumulated(lambda: rng.exponential(1 / rate.per_s, BLOCK))


def gamma(rate: Rate, rng: np.random.Generator) -> Iterator[float]:
    """Gamma-distributed gaps with mean 1/rate and shape `burstiness`: below 1 they come in bursts, 1 is
    Poisson, above 1 they come more evenly."""
    scale = 1 / (rate.per_s * rate.burstiness)
    return _cumulated(lambda: rng.gamma(rate.burstiness, scale, BLOCK))


def ramp(rate: Rate, rng: np.random.Generator) -> Iterator[float]:
    """Poisson arrivals whose rate goes in a straight line from `per_s` to `ramp_to` in `ramp_s` seconds and
    stays there: unit-rate arrivals, mapped through the inverse of the cumulated rate."""
    end = rate.ramp_to if rate.ramp_to is not None else rate.per_s
    slope = (end - rate.per_s) / rate.ramp_s
    within_ramp = (rate.per_s + end) / 2 * rate.ramp_s
    for mass in _cumulated(lambda: rng.exponential(1.0, BLOCK)):
        if mass >= within_ramp:
            yield rate.ramp_s + (mass - within_ramp) / end
        else:
            # rate t + slope t^2 / 2 = mass, in the form that stays exact as the slope goes to 0
            yield 2 * mass / (rate.per_s + math.sqrt(rate.per_s**2 + 2 * slope * mass))


ARRIVALS: dict[str, Callable[[Rate, np.random.Generator], Iterator[float]]] = {
    "constant": constant,
    "poisson": poisson,
    "gamma": gamma,
    "ramp": ramp,
}


def arrivals(name: str, rate: Rate, seed: int) -> Iterator[float]:
    """The starts of all requests, in order. Raises WrongOption for a process that there is not."""
    if name not in ARRIVALS:
        raise WrongOption(f"--arrivals {name}: there are {', '.join(ARRIVALS)}")
    return ARRIVALS[name](rate, np.random.default_rng([seed, 1]))


def _cumulated(gaps: Callable[[], npt.NDArray[np.float64]]) -> Iterator[float]:
    now = 0.0
    while True:
        for gap in gaps():
            now += float(gap)
            yield now
