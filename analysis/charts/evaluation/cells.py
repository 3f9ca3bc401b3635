"""A table of shares: each cell has the colour of its share, and the share as text."""

from __future__ import annotations

import altair as alt

from analysis.charts.drawing.theme import SEQUENTIAL

DARK_UP_TO = 0.6
"""On the dark part of the scale text is white."""


def shares_in_cells(base: alt.Chart, field: str, title: str) -> alt.LayerChart:
    """`base` has the rows and columns; `field` is a share from 0 to 1, `title` what the legend calls it."""
    cells = base.mark_rect().encode(
        color=alt.Color(
            f"{field}:Q",
            scale=alt.Scale(scheme=SEQUENTIAL, domain=[0, 1]),
            legend=alt.Legend(format="%"),
            title=title,
        )
    )
    texts = base.mark_text().encode(
        text=alt.Text(f"{field}:Q", format=".0%"),
        color=alt.condition(f"datum.{field} <= {DARK_UP_TO}", alt.value("white"), alt.value("black")),
    )
    chart: alt.LayerChart = cells + texts
    return chart
