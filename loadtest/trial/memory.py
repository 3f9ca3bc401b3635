"""The memory of processes over a run: samples, a line through them, and whether it is flat.

The slope of the line is the median of those of all pairs of samples (Theil and Sen): a few samples that stand
out, as while a file is written or garbage waits, do not turn it.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import psutil

MIB = 1024 * 1024
LEAST_GROWTH_BYTES = 8 * MIB
"""Allocators and caches settle: less than this is no leak that a run of minutes could show."""
LEAST_SHARE = 0.1
SETTLING = 0.25
"""The first part of a run, in which caches fill, does not count."""
LEAST_SAMPLES = 8


@dataclass(frozen=True)
class Growth:
    """What became of one process: `bytes_per_s` is the slope of a line through its later samples.

    It is flat if `grown_mib`, by which it has grown along that line beside what it is to keep of each
    request, is at most `limit_mib`.
    """

    name: str
    pid: int
    first_mib: float
    last_mib: float
    highest_mib: float
    bytes_per_s: float
    bytes_per_request: float
    grown_mib: float
    limit_mib: float
    flat: bool


@dataclass(frozen=True)
class Sample:
    """Bytes of a process that nobody shares with it (USS), at a time on the run's clock."""

    at_s: float
    size: int


def growth(
    name: str,
    pid: int,
    samples: Sequence[Sample],
    rate: float,
    kept_bytes: float = 0.0,
    settles_bytes: float = LEAST_GROWTH_BYTES,
) -> Growth | None:
    """The line through a process's samples; None if there are too few to say.

    `rate` is in requests per second. A process that is to keep `kept_bytes` of each request may grow by
    those, and by `settles_bytes` once.
    """
    if not samples:
        return None
    begin_s = samples[0].at_s + (samples[-1].at_s - samples[0].at_s) * SETTLING
    later = [sample for sample in samples if sample.at_s >= begin_s]
    if len(later) < LEAST_SAMPLES:
        return None
    times = np.array([sample.at_s for sample in later])
    sizes = np.array([sample.size for sample in later], dtype=float)
    slope = _median_slope(times, sizes)
    grown = (slope - kept_bytes * rate) * float(times[-1] - times[0])
    limit = max(settles_bytes, LEAST_SHARE * float(sizes.mean()))
    return Growth(
        name,
        pid,
        round(samples[0].size / MIB, 1),
        round(samples[-1].size / MIB, 1),
        round(max(sample.size for sample in samples) / MIB, 1),
        round(slope, 1),
        round(slope / rate, 1) if rate else 0.0,
        round(grown / MIB, 1),
        round(limit / MIB, 1),
        grown <= limit,
    )


def _median_slope(times: npt.NDArray[np.float64], sizes: npt.NDArray[np.float64]) -> float:
    earlier, later = np.triu_indices(len(times), 1)
    apart = times[later] - times[earlier]
    return float(np.median((sizes[later] - sizes[earlier])[apart > 0] / apart[apart > 0]))


def _settled(samples: Sequence[Sample]) -> Sample:
    begin_s = samples[0].at_s + (samples[-1].at_s - samples[0].at_s) * SETTLING
    return next(sample for sample in samples if sample.at_s >= begin_s)


class MemoryWatch:
    """Samples processes every `interval_s`; `found` gives them anew each time, with their names."""

    def __init__(self, found: Callable[[], dict[int, str]], interval_s: float) -> None:
        self._found = found
        self._interval_s = interval_s
        self.names: dict[int, str] = {}
        self._first: set[int] | None = None
        self._last: set[int] = set()
        self.samples: dict[int, list[Sample]] = defaultdict(list)

    @property
    def ended(self) -> list[str]:
        """The processes that were not there from the first sample to the last, by their names."""
        others = self.names.keys() - ((self._first or set()) & self._last)
        return sorted(self.names[pid] for pid in others)

    def now(self) -> list[tuple[str, float, float]]:
        """Of each process that is there: its name, its MiB, and how many more than after it had settled."""
        return [
            (self.names[pid], taken[-1].size / MIB, (taken[-1].size - _settled(taken).size) / MIB)
            for pid, taken in sorted(self.samples.items(), key=lambda one: self.names[one[0]])
            if pid in self._last
        ]

    async def keep(self) -> None:
        """Samples for ever."""
        while True:
            await asyncio.to_thread(self.look)
            await asyncio.sleep(self._interval_s)

    def look(self) -> None:
        """One sample of each process."""
        found = self._found()
        self._last = set(found)
        self._first = self._last if self._first is None else self._first
        for pid, name in found.items():
            with contextlib.suppress(psutil.Error):
                size = psutil.Process(pid).memory_full_info().uss
                self.names[pid] = name
                self.samples[pid].append(Sample(time.monotonic(), size))
