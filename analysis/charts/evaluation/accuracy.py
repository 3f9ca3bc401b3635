"""Accuracy of every contestant with its 95 % interval."""

from __future__ import annotations

import altair as alt

from analysis.charts.drawing.theme import MUTED
from analysis.charts.evaluation.picture import COLOUR, SHAPE, Picture

ROW_HEIGHT = 26


def accuracy(picture: Picture) -> alt.LayerChart:
    """A point for each contestant, a line for its Wilson interval; dashed: the first strategy's accuracy."""
    values = picture.values("accuracy", "wilson_low", "wilson_high")
    y = alt.Y("contestant:N", sort=[row["contestant"] for row in values], title=None)
    base = alt.Chart(alt.InlineData(values=values))
    intervals = base.mark_rule(strokeWidth=2.5).encode(
        x=alt.X("wilson_low:Q", scale=alt.Scale(domain=[0, 1]), axis=alt.Axis(format="%"), title="accuracy"),
        x2="wilson_high:Q",
        y=y,
        color=COLOUR,
    )
    points = base.mark_point(size=110, opacity=1).encode(x="accuracy:Q", y=y, color=COLOUR, shape=SHAPE)
    first = alt.Chart(alt.InlineData(values=[{"accuracy": values[0]["accuracy"]}]))
    reference = first.mark_rule(strokeDash=[5, 4], color=MUTED).encode(x="accuracy:Q")
    chart: alt.LayerChart = (reference + intervals + points).properties(
        title=alt.Title(
            picture.title,
            subtitle=f"accuracy and 95 % Wilson interval; dashed: {values[0]['contestant']}",
        ),
        width=460,
        height=ROW_HEIGHT * len(values),
    )
    return chart
