"""A saturation sweep: one request at a time, as many as there is room for, then rates between.

The first step tells the latency of an idle mesh, the second the throughput that can be reached; then
Poisson arrivals at shares of that throughput. A step at which both latency and the number of requests in
flight grow from its first third to its last is beyond saturation, and the sweep stops there.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass, replace

import numpy as np

from loadtest.faults import LoadtestError
from loadtest.generate.arrivals import Rate
from loadtest.generate.plan import LoadPlan
from loadtest.outcome.measurements import Measurements
from loadtest.outcome.summary import Summary

SHARES = (0.2, 0.4, 0.6, 0.7, 0.8, 0.9, 1.0, 1.1)
GROWTH = 1.5
"""From the first third of a step to its last; more than that is no noise."""
KNEE_FACTOR = 2.0
KEEPS_UP = 0.9
LEAST_REQUESTS = 30

Run = Callable[[LoadPlan, str], Awaitable[tuple[Measurements, Summary]]]
"""Runs a plan under a name."""


@dataclass(frozen=True)
class Step:
    """One run of a sweep; `offered` is its rate, None in a closed loop. With `saturated` it was too much."""

    name: str
    offered: float | None
    summary: Summary
    saturated: bool


async def sweep(plan: LoadPlan, concurrency: int, run: Run) -> list[Step]:
    """All steps, each as long as the plan says. LoadtestError if nothing is answered at all."""
    steps = [
        await _step(replace(plan, concurrency=1), "one at a time", None, run),
        await _step(replace(plan, concurrency=concurrency), f"{concurrency} at a time", None, run),
    ]
    most = steps[-1].summary.rate
    if not most:
        raise LoadtestError(f"no request was answered: {steps[-1].summary.errors}")
    for share in SHARES:
        rate = most * share
        open_loop = replace(plan, concurrency=None, arrivals="poisson", rate=Rate(rate))
        steps.append(await _step(open_loop, f"{share:.0%} of it", rate, run))
        if steps[-1].saturated:
            break
    return steps


async def _step(plan: LoadPlan, name: str, offered: float | None, run: Run) -> Step:
    measured, summary = await run(plan, name)
    return Step(name, offered, summary, offered is not None and saturated(measured))


def saturated(m: Measurements) -> bool:
    """Whether latency and requests in flight both grew by half from the first third to the last."""
    if len(m) < LEAST_REQUESTS:
        return False
    end_s = float(m.intended_s.max())
    first, last = (
        m.where((m.intended_s >= low) & (m.intended_s <= high))
        for low, high in ((0.0, end_s / 3), (end_s * 2 / 3, end_s))
    )
    latencies = [float(np.nanmean(part.done_s - part.intended_s)) for part in (first, last)]
    flying = [float(np.mean(list(_in_flight(m, part)))) for part in (first, last)]
    return latencies[1] > GROWTH * latencies[0] and flying[1] > GROWTH * flying[0]


def _in_flight(m: Measurements, part: Measurements) -> Iterator[int]:
    """How many requests were under way when each of a part was sent."""
    for at_s in part.sent_s[:: max(1, len(part) // 200)]:
        yield int(((m.sent_s <= at_s) & ~(m.done_s <= at_s)).sum())


def knee(steps: list[Step]) -> Step | None:
    """The fastest open-loop step that keeps up with its rate at a p95 of at most twice that of the slowest
    step; None if none does."""
    rated = [step for step in steps if step.offered is not None and "e2e_intended" in step.summary.metrics]
    if not rated:
        return None
    calm = min(rated, key=lambda step: step.summary.offered_rate).summary.metrics["e2e_intended"].p95
    kept = [
        step
        for step in rated
        if not step.saturated
        and step.summary.metrics["e2e_intended"].p95 <= KNEE_FACTOR * calm
        and step.summary.rate >= KEEPS_UP * step.summary.offered_rate
    ]
    return max(kept, key=lambda step: step.summary.rate, default=None)
