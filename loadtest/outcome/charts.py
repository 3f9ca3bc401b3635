"""The charts of a load test, from its measurements; how they are drawn is in `analysis/charts/load`.

`CHARTS` are those of a run, by the name of their files; `of_sweep` is that of a sweep.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import altair as alt

from analysis.charts.load.goodput import goodput
from analysis.charts.load.histogram import histogram
from analysis.charts.load.latency_ecdf import latency_ecdf
from analysis.charts.load.latency_over_time import latency_over_time
from analysis.charts.load.saturation import saturation
from loadtest.chaos import Mark
from loadtest.outcome.measurements import Column, Measurements
from loadtest.outcome.metrics import MS, itl, milliseconds, ttft
from loadtest.sweep.search import Step

RunChart = Callable[[Measurements, Column | None, Sequence[Mark]], alt.typing.ChartType | None]
"""From the requests of a run, whether each met the objectives (None if there were none), and what was done to
the mesh; None where there is nothing to draw."""


def over_time(m: Measurements, _met: Column | None, marks: Sequence[Mark]) -> alt.typing.ChartType | None:
    """Percentiles of e2e from the intended start, and the faults."""
    good = m.where(m.good)
    if not len(good):
        return None
    told = [(mark.at_s, mark.text) for mark in marks]
    return latency_over_time(good.intended_s, _latency_ms(good), float(m.intended_s.max()), told)


def distribution(m: Measurements, _met: Column | None, _marks: Sequence[Mark]) -> alt.typing.ChartType | None:
    """e2e from the intended start, by workload."""
    good = m.where(m.good)
    workloads = {name: _latency_ms(good.where(good.workload == name)) for name in sorted(set(good.workload))}
    return latency_ecdf(workloads) if workloads else None


def first_tokens(m: Measurements, _met: Column | None, _marks: Sequence[Mark]) -> alt.typing.ChartType | None:
    """Time to first token."""
    values = ttft(m.where(m.good))
    return histogram(values, "Time to first token", "from send to the first token (ms)", milliseconds)


def gaps(m: Measurements, _met: Column | None, _marks: Sequence[Mark]) -> alt.typing.ChartType | None:
    """Inter-token latency."""
    values = itl(m.where(m.good))
    return histogram(values, "Inter-token latency", "gap between two chunks of an answer (ms)", milliseconds)


def per_second(m: Measurements, met: Column | None, _marks: Sequence[Mark]) -> alt.typing.ChartType | None:
    """Requests that met the objectives, that were answered, that failed."""
    return goodput(m.intended_s, m.good, met) if len(m) else None


def of_sweep(steps: Sequence[Step], knee: Step | None) -> alt.typing.ChartType | None:
    """p50 and p95 of e2e from the intended start at the throughput that was reached; open-loop steps only."""
    rows = [
        {"rate": step.summary.rate, "share": share, "ms": getattr(latency, share), "step": step.name}
        for step in steps
        if step.offered is not None and (latency := step.summary.metrics.get("e2e_intended")) is not None
        for share in ("p50", "p95")
    ]
    return saturation(rows, knee.summary.rate if knee is not None else None) if rows else None


def _latency_ms(m: Measurements) -> Column:
    """One for each request, from its intended start."""
    return (m.done_s - m.intended_s) * MS


CHARTS: dict[str, RunChart] = {
    "latency_over_time": over_time,
    "latency_ecdf": distribution,
    "ttft_histogram": first_tokens,
    "itl_histogram": gaps,
    "goodput": per_second,
}
WITH_WARM_UP = ("latency_over_time", "goodput")
"""Charts over time show the warm-up too; the others, like the figures, leave it out."""
