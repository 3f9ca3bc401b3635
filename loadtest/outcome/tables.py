"""The tables that a person reads at the end of a load test."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from loadtest.outcome.compare import Difference
from loadtest.outcome.metrics import milliseconds
from loadtest.outcome.objectives import Objective
from loadtest.outcome.summary import STATISTICS, Summary
from loadtest.session import Outcome
from loadtest.sweep.search import Step


def of_run(outcome: Outcome) -> RenderableType:
    """The latencies of all requests and of each workload, and what was done to the mesh."""
    parts: list[RenderableType] = [_latencies(outcome.summary), _workloads(outcome.summary)]
    parts += [Text(f"{mark.at_s:6.1f} s  {mark.text}", "yellow") for mark in outcome.marks]
    return Group(*parts)


def _latencies(summary: Summary) -> Table:
    table = Table("ms", "n", *STATISTICS, title="latency", title_justify="left")
    for name, found in summary.metrics.items():
        figures = (milliseconds(getattr(found, statistic)) for statistic in STATISTICS)
        table.add_row(name, f"{found.n:,}", *figures)
    return table


def _workloads(summary: Summary) -> Table:
    names = ("workload", "requests", "answered", "e2e p50", "p95", "p99")
    table = Table(*names, title="workloads", title_justify="left")
    for name, workload in summary.workloads.items():
        e2e = workload.metrics.get("e2e")
        figures = (e2e.p50, e2e.p95, e2e.p99) if e2e is not None else ()
        table.add_row(
            name,
            f"{workload.requests:,}",
            f"{workload.answered:,}",
            *(milliseconds(value) for value in figures),
        )
    return table


def conclusion(
    summary: Summary, folder: Path, objectives: Sequence[Objective], came_true: Sequence[str]
) -> Text:
    """Counts and rates in words, warnings, and where everything else is."""
    lines = [
        f"{summary.requests:,} requests in {summary.seconds:.0f} s: {summary.answered:,} answered, "
        f"{summary.failed:,} failed, {summary.lost} lost, {summary.doubled} doubled",
        f"{summary.offered_rate:,.1f} requests/s offered, {summary.rate:,.1f} answered, "
        f"{summary.tokens_per_s:,.0f} tokens/s",
    ]
    if summary.fetched:
        lines.append(f"{summary.fetched} lost their reply and had their result fetched under their id")
    if objectives:
        limits = ", ".join(f"{one.metric} <= {one.limit_ms:g} ms" for one in objectives)
        lines.append(
            f"goodput ({limits}): {summary.goodput:,.1f}/s, {summary.goodput_share:.1%} of the requests"
        )
    if summary.errors:
        lines.append("errors: " + ", ".join(f"{code} {count}" for code, count in summary.errors.items()))
    lines += [f"warning: {warning}" for warning in summary.warnings]
    lines += [f"failed: {condition}" for condition in came_true]
    return Text("\n".join([*lines, f"results in {folder}, to be read in report.html"]))


def of_sweep(steps: Sequence[Step], knee: Step | None) -> Table:
    """The steps of a sweep; the knee is marked."""
    names = ("step", "offered/s", "answered/s", "tokens/s", "ttft p50", "e2e p50", "e2e p95", "")
    table = Table(*names, title="saturation sweep (ms from the intended start)", title_justify="left")
    for step in steps:
        found = step.summary.metrics
        ttft, e2e = found.get("ttft_intended"), found.get("e2e_intended")
        verdict = "knee" if step is knee else "saturated" if step.saturated else ""
        table.add_row(
            step.name,
            "-" if step.offered is None else f"{step.offered:,.1f}",
            f"{step.summary.rate:,.1f}",
            f"{step.summary.tokens_per_s:,.0f}",
            "-" if ttft is None else milliseconds(ttft.p50),
            *(("-", "-") if e2e is None else (milliseconds(e2e.p50), milliseconds(e2e.p95))),
            verdict,
        )
    return table


def of_comparison(a: str, b: str, found: Sequence[Difference]) -> Table:
    """Two runs; differences whose interval has 0 in it are called tied."""
    table = Table("ms", a, b, "difference", "95 % interval", "", title_justify="left")
    for one in found:
        verdict = "tied" if one.tied else "slower" if one.b > one.a else "faster"
        table.add_row(
            one.name,
            milliseconds(one.a),
            milliseconds(one.b),
            milliseconds(one.b - one.a),
            f"{milliseconds(one.low)} to {milliseconds(one.high)}",
            verdict,
        )
    return table
