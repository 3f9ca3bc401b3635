"""How fast each node generates, by model."""

from __future__ import annotations

import altair as alt

from analysis.charts.drawing.rows import Rows, inline

WIDTH = 560
STEP = 30


def tokens_by_node(rows: Rows) -> alt.typing.ChartType:
    """From the rows of `tokens_per_second_by_node.sql`: generated tokens over the time of evaluation."""
    known = [
        {**row, "who": f"{row['instance']} ({row['host']})"}
        for row in rows
        if row["tokens_per_s"] is not None
    ]
    several = len({row["who"] for row in known}) < len(known)
    base = alt.Chart(inline(known)).encode(
        y=alt.Y("who:N", title=None),
        x=alt.X("tokens_per_s:Q", title="generated tokens per second of evaluation"),
    )
    if several:
        base = base.encode(yOffset=alt.YOffset("model:N"))
    bars = base.mark_bar().encode(
        color=alt.Color("model:N", title=None),
        tooltip=["who:N", "model:N", "tasks:Q", alt.Tooltip("tokens_per_s:Q", format=",.1f")],
    )
    speeds = base.mark_text(align="left", dx=5).encode(text=alt.Text("tokens_per_s:Q", format=",.0f"))
    title = alt.TitleParams("Speed of each node", subtitle="tokens per second while generating")
    return alt.layer(bars, speeds).properties(title=title, width=WIDTH, height=alt.Step(STEP))
