"""The recent steps of a stage: what one with so many tokens takes on this host now."""

from __future__ import annotations

import statistics
import time
from collections import deque
from collections.abc import Callable

from schemas.pipelines.plan import StepTimes

RECENT_S = 6.0
"""A stage whose host becomes busy shows it after half of this."""
LONGER_S = 30.0
FEW_STEPS = 8
"""Where steps are so slow that there are fewer, as many older ones count as well."""
KEPT_STEPS = 1024
TOLD_ROWS = 6
"""A lease has room for so many numbers of rows: those with the most steps."""
NANOSECONDS_PER_MS = 1e6


class RecentSteps:
    """The steps of the last seconds in which each of some sequences had one token.

    Noted on the inference thread, told on any other. A time is that of computing alone: whether there was
    something to do is no part of it.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._steps: deque[tuple[float, int, int]] = deque(maxlen=KEPT_STEPS)

    def note(self, rows: int, compute_ns: int) -> None:
        """A step of so many rows is done."""
        self._steps.append((self._clock(), rows, compute_ns))

    def told(self) -> tuple[StepTimes, ...]:
        """The times by rows, those with the most steps first; none if the last step was long ago."""
        now_s, by_rows = self._clock(), dict[int, list[float]]()
        steps = self._steps.copy()
        if not steps or steps[-1][0] < now_s - RECENT_S:
            return ()
        for at_s, rows, compute_ns in reversed(steps):
            found = by_rows.setdefault(rows, [])
            if at_s >= now_s - (RECENT_S if len(found) >= FEW_STEPS else LONGER_S):
                found.append(compute_ns / NANOSECONDS_PER_MS)
        most_first = sorted(by_rows, key=lambda rows: (-len(by_rows[rows]), rows))
        return tuple(_times(rows, by_rows[rows]) for rows in most_first[:TOLD_ROWS] if by_rows[rows])


def _times(rows: int, steps_ms: list[float]) -> StepTimes:
    median_ms = statistics.median(steps_ms)
    spread = 0.0
    if len(steps_ms) > 1 and median_ms > 0:
        low, _, high = statistics.quantiles(steps_ms, n=4, method="inclusive")
        spread = (high - low) / median_ms
    return StepTimes(rows=rows, steps=len(steps_ms), median_ms=median_ms, spread=spread)
