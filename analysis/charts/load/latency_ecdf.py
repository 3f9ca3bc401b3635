"""The distribution of latency, whole: which share of the requests took at most so long."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import altair as alt
import numpy as np
import numpy.typing as npt

Column = npt.NDArray[Any]
POINTS = 400


def latency_ecdf(latencies_ms: Mapping[str, Column]) -> alt.Chart:
    """One line for each workload; time on a logarithmic scale."""
    rows = [
        {"workload": workload, "ms": float(value), "share": float(share)}
        for workload, latencies in latencies_ms.items()
        for share, value in _quantiles(latencies)
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


def _quantiles(latencies_ms: Column) -> list[tuple[float, float]]:
    latencies = np.sort(latencies_ms)
    places = np.unique(np.linspace(0, len(latencies) - 1, POINTS).astype(int))
    return [((place + 1) / len(latencies), latencies[place]) for place in places]
