"""How long tasks take: percentiles by model and by how their request travels."""

from __future__ import annotations

import altair as alt

from analysis.charts.drawing.percentiles import percentile_bars
from analysis.charts.drawing.rows import Rows


def latency_by_model(rows: Rows) -> alt.typing.ChartType:
    """From the rows of `latency_by_model.sql`; models of which no task was answered are left out."""
    named = [
        {**row, "who": f"{row['model']}, {row['topology']}"} for row in rows if row["p50_ms"] is not None
    ]
    return percentile_bars(
        named, "who", "Latency by model", "bar: median; from taking a task to its last token"
    )
