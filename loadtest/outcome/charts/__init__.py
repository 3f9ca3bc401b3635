"""The charts of a load test: one function a file, from measurements to an Altair chart.

`CHARTS` are those of a run, by the name of their files; the chart of a sweep is in `saturation.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import altair as alt

from loadtest.chaos import Mark
from loadtest.outcome.charts import goodput, histograms, latency_ecdf, latency_over_time
from loadtest.outcome.measurements import Column, Measurements

RunChart = Callable[[Measurements, Column | None, Sequence[Mark]], alt.typing.ChartType | None]
"""From the requests of a run, whether each met the objectives (None if there were none), and what was done to
the mesh; None where there is nothing to draw."""

CHARTS: dict[str, RunChart] = {
    "latency_over_time": latency_over_time.chart,
    "latency_ecdf": latency_ecdf.chart,
    "ttft_histogram": histograms.ttft_chart,
    "itl_histogram": histograms.itl_chart,
    "goodput": goodput.chart,
}
WITH_WARM_UP = ("latency_over_time", "goodput")
"""Charts over time show the warm-up too; the others, like the figures, leave it out."""
