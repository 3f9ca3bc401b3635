"""How long it takes until a model says its first token."""

from __future__ import annotations

import altair as alt

from analysis.charts.drawing.percentiles import percentile_bars
from analysis.charts.drawing.rows import Rows


def time_to_first_token(rows: Rows) -> alt.typing.ChartType:
    """From the rows of `time_to_first_token.sql`."""
    return percentile_bars(rows, "model", "Time to first token", "bar: median; from taking a task")
