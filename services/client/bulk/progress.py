"""How far a bulk run is: live with an ETA on a terminal, plain lines elsewhere; on standard error."""

from __future__ import annotations

import sys
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Protocol, TextIO

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

PLAIN_INTERVAL_S = 5.0
RATE_OVER_S = 30.0

Advance = Callable[[bool], None]
"""Told once for each request that came back: whether it failed."""


class Reporter(Protocol):
    """Where a bulk run says how far it is."""

    def say(self, line: str) -> None:
        """Something that is worth a line of its own."""

    def phase(self, name: str, total: int, done: int) -> AbstractContextManager[Advance]:
        """Shows a phase of `total` requests, of which an earlier attempt has `done`, while it is open."""


def reporter(stream: TextIO | None = None) -> Reporter:
    """The one that fits: live on a terminal, lines elsewhere."""
    stream = stream or sys.stderr
    return LiveReporter(stream) if stream.isatty() else PlainReporter(stream)


class LiveReporter:
    """A bar that is drawn again and again."""

    def __init__(self, stream: TextIO) -> None:
        self._console = Console(file=stream, highlight=False, markup=False, emoji=False)

    def say(self, line: str) -> None:
        """A line above the bar."""
        self._console.print(line, soft_wrap=True)

    @contextmanager
    def phase(self, name: str, total: int, done: int) -> Iterator[Advance]:
        """A bar with how many of how many, the time so far and the time left."""
        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[failed]}"),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
        )
        with Progress(*columns, console=self._console) as bar:
            task = bar.add_task(name, total=total, completed=done, failed="")
            failures = 0

            def advance(failed: bool) -> None:
                nonlocal failures
                failures += failed
                bar.update(task, advance=1, failed=f"{failures} failed" if failures else "")

            yield advance


class PlainReporter:
    """A line now and then, with the rate of the last half minute and the time that the rest takes at it."""

    def __init__(
        self,
        stream: TextIO,
        clock: Callable[[], float] = time.monotonic,
        interval_s: float = PLAIN_INTERVAL_S,
    ) -> None:
        self._stream = stream
        self._clock = clock
        self._interval_s = interval_s

    def say(self, line: str) -> None:
        """A line."""
        print(line, file=self._stream, flush=True)

    @contextmanager
    def phase(self, name: str, total: int, done: int) -> Iterator[Advance]:
        """A line at the start if something is there already, one every few seconds, and one at the end."""
        said_s = self._clock()
        rate = RecentRate(self._clock)
        count = failures = 0
        if done:
            self.say(f"{name}: {done} of {total} are there already")

        def advance(failed: bool) -> None:
            nonlocal count, failures, said_s
            count += 1
            failures += failed
            rate.tick()
            now_s = self._clock()
            if now_s - said_s >= self._interval_s:
                said_s = now_s
                self.say(line(name, done + count, total, rate.per_s, failures))

        yield advance
        if count:
            self.say(line(name, done + count, total, rate.per_s, failures))


class RecentRate:
    """How many a second came within the last half minute."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._times: deque[float] = deque()
        self._started_s = clock()

    def tick(self) -> None:
        """One more has come."""
        now_s = self._clock()
        self._times.append(now_s)
        while self._times[0] <= now_s - RATE_OVER_S:
            self._times.popleft()

    @property
    def per_s(self) -> float:
        """As many each second; 0 if none has come."""
        passed_s = min(RATE_OVER_S, self._clock() - self._started_s)
        return len(self._times) / passed_s if passed_s > 0 else 0.0


def line(name: str, there: int, total: int, rate: float, failures: int) -> str:
    """`questions: 120 of 1306, 38.1 a second, about 31 s left, 2 failed`"""
    parts = [f"{name}: {there} of {total}"]
    if rate:
        parts.append(f"{rate:.1f} a second")
    if rate and there < total:
        parts.append(f"about {duration((total - there) / rate)} left")
    if failures:
        parts.append(f"{failures} failed")
    return ", ".join(parts)


def duration(seconds: float) -> str:
    """`31 s`, `4 min 05 s`, `2 h 05 min`."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02} min"
