"""Latency over the time of a run, second by second, and what was done to the mesh meanwhile."""

from __future__ import annotations

from collections.abc import Sequence

import altair as alt
import numpy as np

from analysis.charts.theme import EMPHASIS
from loadtest.chaos import Mark
from loadtest.measurements import Column, Measurements

MOST_BINS = 120
SHARES = (50, 95, 99)


def chart(m: Measurements, _met: Column, marks: Sequence[Mark]) -> alt.typing.ChartType | None:
    """Percentiles of e2e from the intended start, of the requests that were meant to start in each bin."""
    good = m.where(m.good)
    if not len(good):
        return None
    width_s = max(1.0, float(np.ceil(m.intended_s.max() / MOST_BINS)))
    bins = np.floor(good.intended_s / width_s)
    latencies = (good.done_s - good.intended_s) * 1000
    rows = [
        {"second": float(number * width_s), "share": f"p{share}", "ms": float(value)}
        for number in np.unique(bins)
        for share, value in zip(SHARES, np.percentile(latencies[bins == number], SHARES), strict=True)
    ]
    lines = (
        alt.Chart(alt.InlineData(values=rows))
        .mark_line()
        .encode(
            x=alt.X("second:Q", title="start of the request (s)"),
            y=alt.Y("ms:Q", title="latency from the intended start (ms)", scale=alt.Scale(type="log")),
            color=alt.Color("share:N", title=None),
            strokeDash=alt.StrokeDash("share:N", title=None),
        )
        .properties(title="Latency over time", width=640)
    )
    return lines if not marks else alt.layer(lines, *_marks(marks))


def _marks(marks: Sequence[Mark]) -> tuple[alt.Chart, alt.Chart]:
    data = alt.InlineData(values=[{"second": mark.at_s, "text": mark.text} for mark in marks])
    x = alt.X("second:Q")
    rules = alt.Chart(data).mark_rule(color=EMPHASIS, strokeDash=[4, 3]).encode(x=x)
    labels = (
        alt.Chart(data)
        .mark_text(angle=270, align="right", baseline="bottom", dx=-4, dy=-3, color=EMPHASIS)
        .encode(x=x, y=alt.value(0), text="text:N")
    )
    return rules, labels
