"""What the stages of a pipeline do with their time: compute, wait (the bubble), and what a hop takes."""

from __future__ import annotations

import altair as alt

from analysis.charts.drawing.rows import Rows, inline, unpivoted
from analysis.charts.drawing.theme import CATEGORIES, MUTED

PARTS = {
    "compute_ms": "compute",
    "bubble_ms": "bubble: nothing to compute",
    "hop_ms": "hop from the stage before",
}
COLOURS = (CATEGORIES[2], MUTED, CATEGORIES[4])


def stage_bubbles(rows: Rows) -> alt.typing.ChartType:
    """From the rows of `stage_bubble.sql`: milliseconds per step."""
    named = [{**row, "who": f"{row['pipeline']} {row['stage']} on {row['instance']}"} for row in rows]
    bars: alt.Chart = (
        alt.Chart(inline(unpivoted(named, PARTS)))
        .mark_bar()
        .encode(
            y=alt.Y("who:N", title=None, sort=None),
            yOffset=alt.YOffset("kind:N", sort=list(PARTS.values())),
            x=alt.X("value:Q", title="milliseconds per step"),
            color=alt.Color(
                "kind:N", title=None, scale=alt.Scale(domain=list(PARTS.values()), range=list(COLOURS))
            ),
            tooltip=[
                "who:N",
                "kind:N",
                alt.Tooltip("value:Q", format=",.3~r", title="ms"),
                "steps:Q",
                "mean_batch:Q",
            ],
        )
    )
    title = alt.TitleParams(
        "Stages of pipelines", subtitle="a hop is across clocks if its stages are on two hosts"
    )
    finished: alt.Chart = bars.properties(title=title, width=480, height=alt.Step(20))
    return finished
