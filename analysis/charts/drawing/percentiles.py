"""Percentiles as a lollipop: a bar to the median, and marks for the 95th and 99th percentile."""

from __future__ import annotations

import altair as alt

from analysis.charts.drawing.rows import Rows, inline, unpivoted
from analysis.charts.drawing.theme import CATEGORIES, PLAIN

TAILS = {"p95_ms": "p95", "p99_ms": "p99"}
WIDTH = 560
STEP = 34


def percentile_bars(rows: Rows, who: str, title: str, subtitle: str) -> alt.typing.ChartType:
    """Horizontal bars: `who` names the column of the lines; `p50_ms`, `p95_ms`, `p99_ms` in milliseconds."""
    y = alt.Y(f"{who}:N", title=None, sort=None)
    axis = alt.X("p50_ms:Q", title="milliseconds", axis=alt.Axis(format="~s"))
    bars = alt.Chart(inline(rows)).mark_bar(color=PLAIN, height={"band": 0.55}).encode(y=y, x=axis)
    medians = bars.mark_text(align="left", dx=6).encode(text=alt.Text("p50_ms:Q", format=",.3~r"))
    tails = (
        alt.Chart(inline(unpivoted(rows, TAILS)))
        .mark_tick(thickness=3, size=22, opacity=1)
        .encode(
            y=y,
            x=alt.X("value:Q"),
            color=alt.Color(
                "kind:N",
                title=None,
                scale=alt.Scale(domain=list(TAILS.values()), range=list(CATEGORIES[1:3])),
            ),
            tooltip=[alt.Tooltip(f"{who}:N"), "kind:N", alt.Tooltip("value:Q", format=",.3~r", title="ms")],
        )
    )
    heading = alt.TitleParams(title, subtitle=subtitle)
    return alt.layer(bars, tails, medians).properties(title=heading, width=WIDTH, height=alt.Step(STEP))
