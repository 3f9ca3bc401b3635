"""How much of the error budget each hour has used, and all of them so far."""

from __future__ import annotations

import altair as alt

from analysis.charts.drawing.rows import Rows, inline, utc, written
from analysis.charts.drawing.theme import CATEGORIES, EMPHASIS, PLAIN


def error_budget(rows: Rows) -> alt.typing.ChartType:
    """From the rows of `error_budget.sql`: above the line more has failed than the objective allows."""
    hour = alt.X(
        "hour:O",
        timeUnit="utcmonthdatehours",
        title="UTC",
        axis=alt.Axis(format="%d %b %H:00", labelAngle=-30),
    )
    hours = [{**row, "hour": written(utc(row["hour"]))} for row in rows]
    base = alt.Chart(inline(hours)).encode(x=hour)
    bars = base.mark_bar(color=PLAIN).encode(
        y=alt.Y("budget_used:Q", title="errors over allowed errors"),
        tooltip=["hour:T", "requests:Q", "failed:Q", "worst_code:N"],
    )
    so_far = base.mark_line(point={"color": CATEGORIES[2]}, color=CATEGORIES[2]).encode(
        y="budget_used_total:Q"
    )
    limit = (
        alt.Chart(inline([{"limit": 1.0}])).mark_rule(color=EMPHASIS, strokeDash=[6, 4]).encode(y="limit:Q")
    )
    title = alt.TitleParams("Error budget", subtitle="bars: each hour; line: so far; dashed: all of it used")
    return alt.layer(bars, so_far, limit).properties(title=title, width=max(420, 44 * len(rows)))
