"""The live view of a run: a table on a terminal, a line now and then elsewhere. Both on standard error."""

from __future__ import annotations

import sys
import time
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import numpy as np
from rich.console import Console
from rich.live import Live
from rich.table import Table

from loadtest.generate.progress import Snapshot
from loadtest.outcome.metrics import milliseconds

WINDOW_S = 5.0
LINE_EVERY_S = 5.0
TICKS = ("e2e_ms", "ttft_ms", "lag_ms")


class Recent:
    """Latencies and counts of the last five seconds, of all processes."""

    def __init__(self) -> None:
        self._values: dict[str, deque[tuple[float, float]]] = {name: deque() for name in TICKS}
        self._counts: deque[tuple[float, int, int]] = deque()
        self._last: dict[int, float] = {}

    def take(self, snapshots: Sequence[Snapshot]) -> None:
        """Adds what is new in the latest snapshots."""
        now_s = time.monotonic()
        for number, snapshot in enumerate(snapshots):
            if self._last.get(number) == snapshot["at_s"]:
                continue
            self._last[number] = snapshot["at_s"]
            for name in TICKS:
                self._values[name].extend((now_s, value) for value in snapshot[name])  # type: ignore[literal-required]
        ended, tokens = sum(s["ended"] for s in snapshots), sum(s["tokens"] for s in snapshots)
        self._counts.append((now_s, ended, tokens))
        for values in self._values.values():
            while values and values[0][0] < now_s - WINDOW_S:
                values.popleft()
        while self._counts and self._counts[0][0] < now_s - WINDOW_S:
            self._counts.popleft()

    def percentile(self, name: str, share: float) -> float | None:
        """A percentile of `e2e_ms`, `ttft_ms` or `lag_ms`; None of nothing."""
        values = [value for _, value in self._values[name]]
        return float(np.percentile(values, share)) if values else None

    def per_s(self) -> tuple[float, float]:
        """Requests and tokens each second."""
        if len(self._counts) < 2:
            return 0.0, 0.0
        first, last = self._counts[0], self._counts[-1]
        seconds = max(1e-9, last[0] - first[0])
        return (last[1] - first[1]) / seconds, (last[2] - first[2]) / seconds


class LiveView:
    """What is shown of a run. `total_s` is how long it is meant to last, None if that is not known."""

    def __init__(self, total_s: float | None) -> None:
        self._total_s = total_s
        self._recent = Recent()
        self._snapshots: Sequence[Snapshot] = ()
        self._marks: list[str] = []

    def take(self, snapshots: Sequence[Snapshot]) -> None:
        """The latest of every process."""
        self._snapshots = snapshots
        self._recent.take(snapshots)

    def mark(self, text: str) -> None:
        """Something was done to the mesh."""
        self._marks.append(text)

    def figures(self) -> list[tuple[str, str]]:
        """Names and values, in the order in which they are shown."""
        shots = self._snapshots
        at_s = max((shot["at_s"] for shot in shots), default=0.0)
        counts = {
            name: sum(shot[name] for shot in shots) for name in ("sent", "ended", "failed", "in_flight")
        }
        rate, tokens = self._recent.per_s()
        total = f" of {self._total_s:.0f}" if self._total_s else ""
        return [
            ("elapsed", f"{max(0.0, at_s):.0f}{total} s"),
            ("sent", f"{counts['sent']:,}"),
            ("answered", f"{counts['ended'] - counts['failed']:,}"),
            ("failed", f"{counts['failed']:,}"),
            ("in flight", f"{counts['in_flight']:,}"),
            ("requests/s", f"{rate:,.1f}"),
            ("tokens/s", f"{tokens:,.0f}"),
            ("ttft p50 / p95", self._pair("ttft_ms")),
            ("e2e p50 / p95", self._pair("e2e_ms")),
            ("lag p99", _ms(self._recent.percentile("lag_ms", 99))),
            *(("done to the mesh", mark) for mark in self._marks[-3:]),
        ]

    def table(self) -> Table:
        """The figures, for a terminal."""
        table = Table(show_header=False, box=None, padding=(0, 2))
        table.add_column(style="dim")
        table.add_column(justify="right")
        for name, value in self.figures():
            table.add_row(name, value)
        return table

    def line(self) -> str:
        """The figures in one line."""
        return ", ".join(f"{name} {value}" for name, value in self.figures())

    def _pair(self, name: str) -> str:
        return f"{_ms(self._recent.percentile(name, 50))} / {_ms(self._recent.percentile(name, 95))}"


def _ms(value: float | None) -> str:
    return "-" if value is None else f"{milliseconds(value)} ms"


def say(text: str, *, quiet: bool = False) -> None:
    """A line on standard error, at once."""
    if not quiet:
        sys.stderr.write(f"{text}\n")
        sys.stderr.flush()


@contextmanager
def shown(view: LiveView, *, quiet: bool = False) -> Iterator[LiveView]:
    """Shows a view while the context is open."""
    if quiet:
        yield view
    elif sys.stderr.isatty():
        console = Console(stderr=True, highlight=False)
        with Live(get_renderable=view.table, console=console, refresh_per_second=4, transient=True):
            yield view
    else:
        yield _Lines(view._total_s)


class _Lines(LiveView):
    """Says a line every five seconds."""

    def __init__(self, total_s: float | None) -> None:
        super().__init__(total_s)
        self._next_s = time.monotonic() + LINE_EVERY_S

    def take(self, snapshots: Sequence[Snapshot]) -> None:
        """Counts, and says so if it is time."""
        super().take(snapshots)
        if time.monotonic() >= self._next_s:
            self._next_s = time.monotonic() + LINE_EVERY_S
            sys.stderr.write(self.line() + "\n")
