"""How far a batch is: a bar on a terminal, a line now and then elsewhere. Both on standard error."""

from __future__ import annotations

import sys
import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

from schemas.errors import ErrorBody
from services.cli.batch.run import Step

LINE_EVERY_S = 10.0
RATE_OVER_S = 30.0
UNKNOWN = "-"


class Pace:
    """The rate of the last half minute, and the time that what is left will take at it."""

    def __init__(self) -> None:
        self._times: deque[float] = deque()
        self._started_s = time.monotonic()

    def tick(self) -> None:
        """One task more is done."""
        now_s = time.monotonic()
        self._times.append(now_s)
        while self._times and self._times[0] < now_s - RATE_OVER_S:
            self._times.popleft()

    @property
    def per_s(self) -> float:
        """Tasks each second; 0 if none has been done."""
        passed_s = min(RATE_OVER_S, time.monotonic() - self._started_s)
        return len(self._times) / passed_s if passed_s > 0 else 0.0

    def left(self, tasks: int) -> str:
        """How long so many tasks will take, in words."""
        return duration(tasks / self.per_s) if self.per_s else UNKNOWN


def duration(seconds: float) -> str:
    """`42 s`, `3 min 05 s`, `2 h 03 min`."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02} min"


class Display(Protocol):
    """Whoever shows progress."""

    def step(self, step: Step) -> None:
        """A task is done."""


class Lines:
    """One plain line every ten seconds, and one for every file that failed."""

    def __init__(self, total: int) -> None:
        self._total = total
        self._failures = Failures()
        self._pace = Pace()
        self._next_s = time.monotonic() + LINE_EVERY_S

    def step(self, step: Step) -> None:
        """Counts, and says so if it is time."""
        self._pace.tick()
        if failure := self._failures.line(step):
            typer.echo(failure, err=True)
        if time.monotonic() >= self._next_s or not step.left:
            self._next_s = time.monotonic() + LINE_EVERY_S
            typer.echo(
                f"{self._total - step.left}/{self._total} done, {self._failures.count} failed, "
                f"{self._pace.per_s:.1f} a second, {self._pace.left(step.left)} left",
                err=True,
            )


class Bar:
    """A bar with count, rate and the time that is left; failed tasks are listed above it."""

    def __init__(self, progress: Progress, task: TaskID) -> None:
        self._progress = progress
        self._task = task
        self._failures = Failures()
        self._pace = Pace()

    def step(self, step: Step) -> None:
        """Moves on."""
        self._pace.tick()
        if failure := self._failures.line(step):
            self._progress.console.print(failure, style="yellow", soft_wrap=True)
        self._progress.update(
            self._task,
            advance=1,
            failed=f"{self._failures.count} failed",
            rate=f"{self._pace.per_s:.1f}/s",
            left=f"{self._pace.left(step.left)} left",
        )


class Failures:
    """Failed tasks: how many, and a line for each file and reason, however many prompts it concerns."""

    def __init__(self) -> None:
        self.count = 0
        self._said: set[str] = set()

    def line(self, step: Step) -> str | None:
        """What is new about this task, if it failed."""
        if step.record.error is None:
            return None
        self.count += 1
        line = failure_line(step.record.file, step.record.error)
        known = line in self._said
        self._said.add(line)
        return None if known else line


def failure_line(file: str, error: ErrorBody) -> str:
    """A file and what went wrong with it, in one line."""
    return f"{file}: {error.code}: {' '.join(error.message.split())}"


@contextmanager
def progress(total: int, done: int) -> Iterator[Display]:
    """What shows the progress of a batch of `total` tasks of which `done` were done before."""
    if not sys.stderr.isatty():
        yield Lines(total)
        return
    columns = (
        BarColumn(bar_width=None),
        MofNCompleteColumn(),
        *(TextColumn(f"{{task.fields[{name}]}}") for name in ("failed", "rate", "left")),
        TimeElapsedColumn(),
    )
    screen = Console(stderr=True, highlight=False, markup=False, emoji=False)
    with Progress(*columns, console=screen) as bar:
        task = bar.add_task(
            "",
            total=total,
            completed=done,
            failed="0 failed",
            rate=f"{UNKNOWN}/s",
            left=f"{UNKNOWN} left",
        )
        yield Bar(bar, task)
