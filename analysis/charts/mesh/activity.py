"""What the mesh does over time: requests, tokens and latency."""

from __future__ import annotations

from datetime import timedelta
from itertools import pairwise

import altair as alt

from analysis.charts.drawing.rows import Row, Rows, inline, unpivoted, utc, written
from analysis.charts.drawing.theme import CATEGORIES, EMPHASIS, PLAIN, UTC_CLOCK

WIDTH = 680
HEIGHT = 130
PERCENTILES = {"p50_ms": "p50", "p95_ms": "p95"}
ONE_STEP = timedelta(minutes=1)


def activity(rows: Rows) -> alt.typing.ChartType:
    """From the rows of `activity.sql`: three panels over the same time; a step without requests is empty."""
    placed = with_ends(rows)
    panels = (
        _bars(placed, "requests_per_s", "requests per second", PLAIN),
        _bars(placed, "tokens_per_s", "tokens per second", CATEGORIES[2]),
        _latency(placed),
    )
    together: alt.VConcatChart = alt.vconcat(*panels, title="Activity").resolve_scale(
        x="shared", color="independent"
    )
    return together


def with_ends(rows: Rows) -> list[Row]:
    """The rows with the end of each step: steps are as long as the shortest distance of two of them."""
    begins = [utc(row["at"]) for row in rows]
    step = min((later - earlier for earlier, later in pairwise(begins)), default=ONE_STEP)
    return [
        {**row, "at": written(begin), "until": written(begin + step)}
        for row, begin in zip(rows, begins, strict=True)
    ]


def _time(title: str | None = None) -> alt.X:
    return alt.X("at:T", title=title, scale=alt.Scale(type="utc"), axis=alt.Axis(labelExpr=UTC_CLOCK))


def _bars(rows: Rows, column: str, title: str, colour: str) -> alt.Chart:
    mark = alt.Chart(inline(rows)).mark_rect(color=colour)
    y = alt.Y(f"{column}:Q", title=title, scale=alt.Scale(zero=True))
    chart = mark.encode(x=_time(), x2="until:T", y=y, y2=alt.datum(0))
    panel: alt.Chart = chart.properties(width=WIDTH, height=HEIGHT)
    return panel


def _latency(rows: Rows) -> alt.Chart:
    scale = alt.Scale(domain=list(PERCENTILES.values()), range=[PLAIN, EMPHASIS])
    chart = alt.Chart(inline(unpivoted(rows, PERCENTILES))).mark_point()
    panel: alt.Chart = chart.encode(
        x=_time("UTC"),
        y=alt.Y("value:Q", title="milliseconds", axis=alt.Axis(format="~s")),
        color=alt.Color("kind:N", title=None, scale=scale),
        shape=alt.Shape("kind:N", legend=None),
        tooltip=["at:T", "kind:N", alt.Tooltip("value:Q", format=",.3~r", title="ms")],
    ).properties(width=WIDTH, height=HEIGHT)
    return panel
