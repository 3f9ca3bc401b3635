"""How time to first token and inter-token latency are distributed."""

from __future__ import annotations

from collections.abc import Sequence

import altair as alt
import numpy as np

from analysis.charts.theme import EMPHASIS
from loadtest.chaos import Mark
from loadtest.measurements import Column, Measurements
from loadtest.metrics import itl, ttft

BINS = 50


def ttft_chart(m: Measurements, _met: Column, _marks: Sequence[Mark]) -> alt.typing.ChartType | None:
    """Time to first token."""
    return _histogram(ttft(m.where(m.good)), "Time to first token", "from send to the first token (ms)")


def itl_chart(m: Measurements, _met: Column, _marks: Sequence[Mark]) -> alt.typing.ChartType | None:
    """Inter-token latency."""
    return _histogram(itl(m.where(m.good)), "Inter-token latency", "gap between two chunks of an answer (ms)")


def _histogram(values: Column, title: str, axis: str) -> alt.typing.ChartType | None:
    """Bins of equal ratios, as latencies differ by orders of magnitude; median and 99th percentile marked."""
    values = values[values > 0]
    if len(values) < 2 or values.min() == values.max():
        return None
    edges = np.geomspace(values.min(), values.max(), BINS + 1)
    counts, _ = np.histogram(values, bins=edges)
    bars = alt.InlineData(
        values=[
            {"from": float(low), "to": float(high), "count": int(count)}
            for low, high, count in zip(edges[:-1], edges[1:], counts, strict=True)
        ]
    )
    x = alt.X("from:Q", bin="binned", title=axis, scale=alt.Scale(type="log", nice=False))
    y = alt.Y("count:Q", title="count", scale=alt.Scale(domainMax=float(counts.max()) * 1.2))
    columns = alt.Chart(bars).mark_bar(stroke="white").encode(x=x, x2="to:Q", y=y)
    median, high = (float(value) for value in np.percentile(values, (50, 99)))
    rules = (*_rule("p50", median, row=0), *_rule("p99", high, row=1))
    subtitle = f"{len(values):,} values, the largest {values.max():,.1f} ms"
    return alt.layer(columns, *rules).properties(title=alt.TitleParams(title, subtitle=subtitle), width=640)


def _rule(name: str, ms: float, row: int) -> tuple[alt.Chart, alt.Chart]:
    """A line at a value, with its name beside it, in a row of its own."""
    base = alt.Chart(alt.InlineData(values=[{"ms": ms, "name": f"{name} {ms:,.1f}"}])).encode(x="ms:Q")
    text = base.mark_text(align="right", dx=-5, dy=8 + 18 * row, color=EMPHASIS)
    return base.mark_rule(color=EMPHASIS), text.encode(y=alt.value(0), text="name:N")
