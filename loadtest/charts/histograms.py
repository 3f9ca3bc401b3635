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
    """Bins up to the 99th percentile, marked like the median; what is above stands in the subtitle."""
    if len(values) < 2:
        return None
    median, most = (float(value) for value in np.percentile(values, (50, 99)))
    counts, edges = np.histogram(values[values <= most], bins=BINS)
    bars = alt.InlineData(
        values=[
            {"from": float(low), "to": float(high), "count": int(count)}
            for low, high, count in zip(edges[:-1], edges[1:], counts, strict=True)
        ]
    )
    marks = alt.InlineData(
        values=[{"ms": median, "name": f"p50 {median:.1f}"}, {"ms": most, "name": f"p99 {most:.1f}"}]
    )
    x = alt.X("from:Q", title=axis, scale=alt.Scale(zero=False))
    columns = alt.Chart(bars).mark_bar().encode(x=x, x2="to:Q", y=alt.Y("count:Q", title="count"))
    rules = alt.Chart(marks).mark_rule(color=EMPHASIS).encode(x="ms:Q")
    labels = (
        alt.Chart(marks)
        .mark_text(align="right", dx=-5, dy=8, color=EMPHASIS)
        .encode(x="ms:Q", y=alt.value(0), text="name:N")
    )
    subtitle = f"{len(values):,} values, the largest {values.max():,.1f} ms"
    return alt.layer(columns, rules, labels).properties(
        title=alt.TitleParams(title, subtitle=subtitle), width=640
    )
