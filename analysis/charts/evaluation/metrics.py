"""The figure of a paper's column: accuracy, F1, latency and processor of every contestant, side by side."""

from __future__ import annotations

from typing import Any

import altair as alt

from analysis.charts.drawing.theme import CATEGORIES
from analysis.charts.evaluation.cost import NO_CHOICE
from analysis.charts.evaluation.picture import GROUPS, Picture, why_absent

PANEL_WIDTH, ROW_HEIGHT, FONT = 104, 13, 10
"""Two panels and the names of contestants make 3.5 inches at 100 pixels an inch: 7 points in print."""

PANELS = {
    "accuracy": ("accuracy", "%"),
    "f1": ("F1", "~g"),
    "latency_mean_s": ("seconds a question", "~g"),
    "cpu_percent": ("processor, % of a core", ",.0f"),
}


def metrics(picture: Picture) -> alt.VConcatChart:
    """A panel for each measure, two in a row; lines are 95 % intervals of the accuracy.

    Latencies that were measured under another load are left out, and the figure says so.
    """
    rows = [row for row in picture.rows if row["contestant"] not in NO_CHOICE]
    panels = [panel for column in PANELS if (panel := _panel(picture, column)) is not None]
    subtitle = [picture.counts, "lines: 95 % Wilson interval"]
    for line in why_absent(rows):
        names, _, reason = line.partition(": ")
        subtitle += [f"latency {names}:", reason]
    pairs = [alt.hconcat(*panels[i : i + 2], spacing=8) for i in range(0, len(panels), 2)]
    drawn: alt.VConcatChart = (
        alt.vconcat(*pairs, spacing=10)
        .properties(title=alt.TitleParams(picture.field.benchmark, subtitle=subtitle))
        .configure_axis(labelFontSize=FONT, titleFontSize=FONT, labelLimit=120, titlePadding=4)
        .configure_legend(labelFontSize=FONT, symbolSize=60)
        .configure_title(fontSize=FONT + 3, subtitleFontSize=FONT, offset=6)
    )
    return drawn


def _panel(picture: Picture, column: str) -> alt.typing.ChartType | None:
    """Bars of one measure, None where it was not measured; names stand at the left panels only."""
    title, form = PANELS[column]
    values: list[dict[str, Any]] = picture.values(column, "wilson_low", "wilson_high", without=NO_CHOICE)
    order = [row["contestant"] for row in values]
    values = [row for row in values if row[column] is not None]
    if not values:
        return None
    named = list(PANELS).index(column) % 2 == 0
    y = alt.Y(
        "contestant:N",
        sort=order,
        title=None,
        scale=alt.Scale(domain=order),
        axis=alt.Axis(labels=named, ticks=False, domain=False),
    )
    scale = alt.Scale(domain=[0, 1]) if column in ("accuracy", "f1") else alt.Scale(zero=True)
    x = alt.X(f"{column}:Q", title=title, scale=scale, axis=alt.Axis(format=form, tickCount=3))
    base = alt.Chart(alt.InlineData(values=values))
    colour = alt.Color(
        "group:N",
        scale=alt.Scale(domain=list(GROUPS.values()), range=list(CATEGORIES[:3])),
        title=None,
        legend=alt.Legend(orient="bottom", columns=1),
    )
    layers = [base.mark_bar(height=ROW_HEIGHT - 4).encode(x=x, y=y, color=colour)]
    if column == "accuracy":
        layers.append(base.mark_rule(strokeWidth=1).encode(x="wilson_low:Q", x2="wilson_high:Q", y=y))
    return alt.layer(*layers).properties(width=PANEL_WIDTH, height=ROW_HEIGHT * len(order))
