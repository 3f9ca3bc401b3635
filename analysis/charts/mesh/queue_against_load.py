"""How the time in the queue grows with what waits there."""

from __future__ import annotations

import altair as alt

from analysis.charts.drawing.rows import Rows, inline, unpivoted

PERCENTILES = {"p50_ms": "p50", "p95_ms": "p95"}


def queue_against_load(rows: Rows) -> alt.typing.ChartType:
    """From the rows of `queue_time_against_load.sql`: both axes logarithmic, a load of 0 stands at 1."""
    points = [{**row, "load": row["waiting_from"] + 1} for row in unpivoted(rows, PERCENTILES)]
    base = alt.Chart(inline(points)).encode(
        x=alt.X("load:Q", title="commands in the queue then", scale=alt.Scale(type="log", base=2)),
        y=alt.Y("value:Q", title="milliseconds in the queue", scale=alt.Scale(type="log", nice=False),
                axis=alt.Axis(format="~s")),
        color=alt.Color("model:N", title=None),
        strokeDash=alt.StrokeDash("kind:N", legend=None),
    )  # fmt: skip
    lines = base.mark_line()
    dots = base.mark_point().encode(
        shape=alt.Shape("kind:N", title=None),
        tooltip=[
            "model:N",
            "kind:N",
            "load:Q",
            alt.Tooltip("value:Q", format=",.3~r", title="ms"),
            "tasks:Q",
        ],
    )
    title = alt.TitleParams(
        "Time in the queue against load", subtitle="by the broker's clock and the agent's"
    )
    return alt.layer(lines, dots).properties(title=title)
