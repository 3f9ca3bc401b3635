"""Throughput against latency over the steps of a sweep, with the knee marked."""

from __future__ import annotations

import altair as alt

from analysis.charts.drawing.rows import Rows, inline
from analysis.charts.drawing.theme import CATEGORIES, EMPHASIS, PLAIN


def saturation(rows: Rows, knee_rate: float | None) -> alt.typing.ChartType:
    """A row has the `rate` that a step reached, the `share` of a percentile (p50, p95) and its `ms`."""
    base = alt.Chart(inline(rows)).encode(
        x=alt.X("rate:Q", title="answered requests per second", scale=alt.Scale(zero=True)),
        y=alt.Y("ms:Q", title="latency from the intended start (ms)", scale=alt.Scale(type="log")),
        color=alt.Color("share:N", title=None, scale=alt.Scale(range=[PLAIN, CATEGORIES[2]])),
        shape=alt.Shape("share:N", title=None, legend=None),
        order=alt.Order("rate:Q"),
    )
    layers: list[alt.Chart] = [base.mark_line(), base.mark_point()]
    if knee_rate is not None:
        data = alt.InlineData(values=[{"rate": knee_rate, "name": f"knee: {knee_rate:,.1f}/s"}])
        layers.append(alt.Chart(data).mark_rule(color=EMPHASIS, strokeDash=[4, 3]).encode(x="rate:Q"))
        layers.append(
            alt.Chart(data)
            .mark_text(align="right", dx=-6, dy=10, color=EMPHASIS)
            .encode(x="rate:Q", y=alt.value(0), text="name:N")
        )
    return alt.layer(*layers).properties(title="Throughput and latency", width=640)
