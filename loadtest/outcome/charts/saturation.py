"""Throughput against latency over the steps of a sweep, with the knee marked."""

from __future__ import annotations

from collections.abc import Sequence

import altair as alt

from analysis.charts.drawing.theme import CATEGORIES, EMPHASIS, PLAIN
from loadtest.sweep.search import Step


def chart(steps: Sequence[Step], knee: Step | None) -> alt.typing.ChartType | None:
    """p50 and p95 of e2e from the intended start at the throughput that was reached; open-loop steps only."""
    rows = [
        {"rate": step.summary.rate, "share": share, "ms": getattr(latency, share), "step": step.name}
        for step in steps
        if step.offered is not None and (latency := step.summary.metrics.get("e2e_intended")) is not None
        for share in ("p50", "p95")
    ]
    if not rows:
        return None
    base = alt.Chart(alt.InlineData(values=rows)).encode(
        x=alt.X("rate:Q", title="answered requests per second", scale=alt.Scale(zero=True)),
        y=alt.Y("ms:Q", title="latency from the intended start (ms)", scale=alt.Scale(type="log")),
        color=alt.Color("share:N", title=None, scale=alt.Scale(range=[PLAIN, CATEGORIES[2]])),
        shape=alt.Shape("share:N", title=None, legend=None),
        order=alt.Order("rate:Q"),
    )
    layers: list[alt.Chart] = [base.mark_line(), base.mark_point()]
    if knee is not None:
        data = alt.InlineData(
            values=[{"rate": knee.summary.rate, "name": f"knee: {knee.summary.rate:,.1f}/s"}]
        )
        layers.append(alt.Chart(data).mark_rule(color=EMPHASIS, strokeDash=[4, 3]).encode(x="rate:Q"))
        layers.append(
            alt.Chart(data)
            .mark_text(align="right", dx=-6, dy=10, color=EMPHASIS)
            .encode(x="rate:Q", y=alt.value(0), text="name:N")
        )
    return alt.layer(*layers).properties(title="Throughput and latency", width=640)
