"""How much the agents agree, how clear the decisions are, and how often they are right."""

from __future__ import annotations

import altair as alt

from analysis.charts.drawing.rows import Rows, inline, unpivoted

MEASURES = {
    "mean_share": "agreement",
    "unanimous": "unanimous",
    "mean_margin": "lead",
    "accuracy": "right, as far as judged",
}


def agreement(rows: Rows) -> alt.typing.ChartType:
    """From the rows of `strategies.sql`; what nobody has judged has no accuracy."""
    measured = unpivoted(rows, MEASURES)
    kinds = [kind for kind in MEASURES.values() if any(row["kind"] == kind for row in measured)]
    bars = (
        alt.Chart(inline(measured))
        .mark_bar()
        .encode(
            x=alt.X("strategy:N", title=None, axis=alt.Axis(labelAngle=0)),
            xOffset=alt.XOffset("kind:N", sort=kinds),
            y=alt.Y("value:Q", title=None, axis=alt.Axis(format="%"), scale=alt.Scale(domain=[0, 1])),
            color=alt.Color("kind:N", title=None, scale=alt.Scale(domain=kinds)),
            tooltip=["strategy:N", "kind:N", alt.Tooltip("value:Q", format=".1%"), "decisions:Q", "judged:Q"],
        )
    )
    title = alt.TitleParams("Agreement of the agents", subtitle="means over all decisions of a strategy")
    finished: alt.Chart = bars.properties(title=title, width=max(320, 150 * len(rows)))
    return finished
