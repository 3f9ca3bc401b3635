"""Rows of any kind as a chart: what is asked of the event database by hand has no chart of its own."""

from __future__ import annotations

import altair as alt

from analysis.charts.drawing.rows import Rows, inline, unpivoted, utc, written
from analysis.charts.drawing.theme import CATEGORIES, UTC_CLOCK

WIDTH, HEIGHT, STEP = 620, 280, 22
MOST_ROWS = 1_000
MOST_BARS = 40
NO_NUMBERS = "no column of these rows has numbers: there is nothing to draw"
TIMES = ("at", "time", "hour", "day", "moment")


def columns(rows: Rows) -> alt.typing.ChartType:
    """Times become lines, names become bars, numbers alone become points over their order.

    The first column that is no number names the rows; each column of numbers is a colour, of the first few.
    Raises ValueError where there are no numbers.
    """
    shown = list(rows[:MOST_ROWS])
    names = list(shown[0]) if shown else []
    numbers = [name for name in names if _holds(shown, name, int | float)][: len(CATEGORIES)]
    labels = [name for name in names if name not in numbers and _holds(shown, name, str)]
    if not numbers:
        raise ValueError(NO_NUMBERS)
    series = dict(zip(numbers, numbers, strict=True))
    moment = next((name for name in labels if _is_time(shown, name)), None)
    if moment is not None:
        return _lines(
            [{**row, moment: written(utc(row[moment]))} for row in shown if row[moment]], moment, series
        )
    if labels:
        return _bars(shown[:MOST_BARS], labels[0], series)
    return _points([{**row, "row": number} for number, row in enumerate(shown, 1)], series)


def _holds(rows: Rows, column: str, kind: object) -> bool:
    values = [row[column] for row in rows if row[column] is not None]
    return bool(values) and all(isinstance(v, kind) and not isinstance(v, bool) for v in values)  # type: ignore[arg-type]


def _is_time(rows: Rows, column: str) -> bool:
    if not column.lower().endswith(TIMES):
        return False
    try:
        return all(utc(row[column]) is not None for row in rows if row[column])
    except ValueError:
        return False


def _encoded(rows: Rows, x: str, series: dict[str, str]) -> alt.Chart:
    scale = alt.Scale(domain=list(series), range=list(CATEGORIES[: len(series)]))
    chart: alt.Chart = alt.Chart(inline(unpivoted(rows, series))).encode(
        color=alt.Color("kind:N", title=None, scale=scale),
        tooltip=[x, "kind:N", alt.Tooltip("value:Q", format=",.4~r")],
    )
    return chart


def _lines(rows: Rows, moment: str, series: dict[str, str]) -> alt.typing.ChartType:
    chart = _encoded(rows, f"{moment}:T", series).mark_line(point=True)
    x = alt.X(f"{moment}:T", title="UTC", scale=alt.Scale(type="utc"), axis=alt.Axis(labelExpr=UTC_CLOCK))
    drawn: alt.Chart = chart.encode(x=x, y=alt.Y("value:Q", title=None)).properties(
        width=WIDTH, height=HEIGHT
    )
    return drawn


def _bars(rows: Rows, label: str, series: dict[str, str]) -> alt.typing.ChartType:
    chart = _encoded(rows, f"{label}:N", series).mark_bar()
    drawn: alt.Chart = chart.encode(
        y=alt.Y(f"{label}:N", title=None, sort=None),
        x=alt.X("value:Q", title=None),
        yOffset=alt.YOffset("kind:N", sort=list(series)),
    ).properties(width=WIDTH, height=alt.Step(STEP))
    return drawn


def _points(rows: Rows, series: dict[str, str]) -> alt.typing.ChartType:
    chart = _encoded(rows, "row:Q", series).mark_point()
    drawn: alt.Chart = chart.encode(x="row:Q", y=alt.Y("value:Q", title=None)).properties(
        width=WIDTH, height=HEIGHT
    )
    return drawn
