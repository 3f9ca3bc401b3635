"""The charts of an evaluation: a new one is a file here and a line in `CHARTS`.

A chart takes a `Picture`, what was scored of one benchmark (or of all), and gives an Altair chart, or None
where there is nothing to draw.
"""

from __future__ import annotations

from collections.abc import Callable

import altair as alt

from analysis.charts.evaluation.accuracy import accuracy
from analysis.charts.evaluation.agreement import agreement
from analysis.charts.evaluation.cost import against_latency, against_tokens
from analysis.charts.evaluation.metrics import metrics
from analysis.charts.evaluation.picture import Picture
from analysis.charts.evaluation.selective import reliability_diagram, risk_coverage
from analysis.charts.evaluation.topics import topics

__all__ = ["CHARTS", "Chart", "Picture"]

Chart = Callable[[Picture], alt.typing.ChartType | None]

CHARTS: dict[str, Chart] = {
    "metrics": metrics,
    "accuracy": accuracy,
    "accuracy_against_tokens": against_tokens,
    "accuracy_against_latency": against_latency,
    "agreement": agreement,
    "topics": topics,
    "risk_coverage": risk_coverage,
    "reliability": reliability_diagram,
}
