"""The distribution of latency, whole: which share of the requests took at most so long."""

from __future__ import annotations

from collections.abc import Sequence

import altair as alt
import numpy as np

from loadtest.chaos import Mark
from loadtest.outcome.measurements import Column, Measurements

POINTS = 400


def chart(m: Measurements, _met: Column | None, _marks: Sequence[Mark]) -> alt.typing.ChartType | None:
    """One line for each workload; time on a logarithmic scale."""
    good = m.where(m.good)
    if not len(good):
        return None
    rows = [
        {"workload": workload, "ms": float(value), "share": float(share)}
        for workload in sorted(set(good.workload))
        for share, value in _quantiles(good.where(good.workload == workload))
    ]
    drawn: alt.Chart = (
        alt.Chart(alt.InlineData(values=rows))
        .mark_line(interpolate="step-after")
        .encode(
            x=alt.X(
                "ms:Q", title="latency from the intended start (ms)", scale=alt.Scale(type="log", nice=False)
            ),
            y=alt.Y("share:Q", title="share of the requests", axis=alt.Axis(format="%")),
            color=alt.Color("workload:N", title=None),
            strokeDash=alt.StrokeDash("workload:N", title=None),
        )
        .properties(title="Latency: share of requests that took at most so long", width=640)
    )
    return drawn


def _quantiles(m: Measurements) -> list[tuple[float, float]]:
    latencies = np.sort((m.done_s - m.intended_s) * 1000)
    places = np.unique(np.linspace(0, len(latencies) - 1, POINTS).astype(int))
    return [((place + 1) / len(latencies), latencies[place]) for place in places]
