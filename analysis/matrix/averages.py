"""The means of the measurements of each pair. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from statistics import fmean, stdev

from analysis.matrix.record import Row
from schemas.message import Struct

NS_PER_MS = 1e6


class PairAverage(Struct):
    """A generator with a summarizer: means over the cells that succeeded, None where nothing was measured."""

    generator: str
    summarizer: str
    cells: int
    failed: int
    total_time_s: float | None = None
    total_time_sd_s: float | None = None
    tokens_per_s: float | None = None
    generator_tokens_per_s: float | None = None
    summarizer_tokens_per_s: float | None = None
    network_latency_ms: float | None = None


class MatrixReport(Struct):
    """What `choir matrix --json` prints: where everything lies, and each pair's means."""

    folder: str
    charts: tuple[str, ...]
    pairs: tuple[PairAverage, ...]


def pair_averages(rows: Sequence[Row]) -> tuple[PairAverage, ...]:
    """The pairs in the order in which they first come."""
    pairs = dict.fromkeys((str(row["generator"]), str(row["summarizer"])) for row in rows)
    return tuple(
        _average(*pair, [row for row in rows if (row["generator"], row["summarizer"]) == pair])
        for pair in pairs
    )


def _average(generator: str, summarizer: str, rows: Sequence[Row]) -> PairAverage:
    done = [row for row in rows if row["success"]]
    times = _numbers(row["total_time_s"] for row in done)
    latency_ns = _mean(_numbers(row["network_latency_ns"] for row in done))
    return PairAverage(
        generator=generator,
        summarizer=summarizer,
        cells=len(rows),
        failed=len(rows) - len(done),
        total_time_s=_mean(times),
        total_time_sd_s=stdev(times) if len(times) > 1 else None,
        tokens_per_s=_mean(_numbers(row["tokens_per_s"] for row in done)),
        generator_tokens_per_s=_mean(_numbers(row["generator_tokens_per_s"] for row in done)),
        summarizer_tokens_per_s=_mean(_numbers(row["summarizer_tokens_per_s"] for row in done)),
        network_latency_ms=None if latency_ns is None else latency_ns / NS_PER_MS,
    )


def _numbers(values: Iterable[object]) -> list[float]:
    return [float(value) for value in values if isinstance(value, int | float)]


def _mean(values: Sequence[float]) -> float | None:
    return fmean(values) if values else None


def figure(value: float | None, unit: str = "") -> str:
    """Three digits and the unit; a dash for what was not measured."""
    if value is None:
        return "-"
    digits = f"{value:,.0f}" if value >= 100 else f"{value:.3g}"
    return f"{digits} {unit}".strip()
