"""The memory of processes over a run: samples, a line through them, and whether it is flat."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
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
    """What became of one process: `bytes_per_s` is the slope of a line through its later samples."""

    name: str
    pid: int
    first_mib: float
    last_mib: float
    highest_mib: float
    bytes_per_s: float
    bytes_per_request: float
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
    slope = float(np.polyfit(times - times[0], sizes, 1)[0])
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
        grown <= limit,
    )


class MemoryWatch:
    """Samples processes every `interval_s`; `found` gives them anew each time, with their names."""

    def __init__(self, found: Callable[[], dict[int, str]], interval_s: float) -> None:
        self._found = found
        self._interval_s = interval_s
        self.names: dict[int, str] = {}
        self.samples: dict[int, list[Sample]] = defaultdict(list)

    async def keep(self) -> None:
        """Samples for ever."""
        while True:
            await asyncio.to_thread(self.look)
            await asyncio.sleep(self._interval_s)

    def look(self) -> None:
        """One sample of each process."""
        for pid, name in self._found().items():
            with contextlib.suppress(psutil.Error):
                size = psutil.Process(pid).memory_full_info().uss
                self.names[pid] = name
                self.samples[pid].append(Sample(time.monotonic(), size))
