"""Latency over the time of a run, and what was done to the mesh meanwhile.

A bin is as wide as it takes to have 20 requests in it, and only the percentiles that so many tell apart:
of 20 values the 99th is the largest one. Where requests are few each of them is a point as well.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import altair as alt
import numpy as np
import numpy.typing as npt

from analysis.charts.drawing.theme import EMPHASIS, MUTED

Column = npt.NDArray[Any]
Mark = tuple[float, str]
"""When something was done to the mesh, in seconds, and what."""

MOST_BINS = 120
FEWEST_VALUES = 20
"""In a bin."""
SHARES = (50, 95, 99)
MOST_POINTS = 1_500


def latency_over_time(
    starts_s: Column, latencies_ms: Column, last_s: float, marks: Sequence[Mark]
) -> alt.typing.ChartType:
    """Percentiles of the latencies of requests that were meant to start in each bin, until `last_s`."""
    width_s = bin_width_s(starts_s, last_s)
    bins = np.floor(starts_s / width_s)
    rows = [
        {"second": float((number + 0.5) * width_s), "share": f"p{share}", "ms": float(value)}
        for number in np.unique(bins)
        for share, value in percentiles(latencies_ms[bins == number])
    ]
    x = alt.X("second:Q", title="start of the request (s)")
    y = alt.Y("ms:Q", title="latency from the intended start (ms)", scale=alt.Scale(type="log", nice=False))
    lines = (
        alt.Chart(alt.InlineData(values=rows))
        .mark_line(point=alt.OverlayMarkDef(size=35))
        .encode(
            x=x,
            y=y,
            color=alt.Color("share:N", title=None),
            strokeDash=alt.StrokeDash("share:N", title=None),
        )
    )
    layers: list[alt.Chart] = [lines]
    if len(starts_s) <= MOST_POINTS:
        layers.insert(0, _points(starts_s, latencies_ms).encode(x=x, y=y))
    subtitle = f"percentiles of the requests of {width_s:g} s each" + (
        "; a point is a request" if len(layers) > 1 else ""
    )
    return alt.layer(*layers, *(_marks(marks) if marks else ())).properties(
        title=alt.TitleParams("Latency over time", subtitle=subtitle), width=640
    )


def bin_width_s(starts_s: Column, last_s: float) -> float:
    """Whole seconds: so many that a bin has 20 requests on average, and that there are not too many bins."""
    enough_s = FEWEST_VALUES * last_s / max(1, len(starts_s))
    return float(max(1.0, np.ceil(last_s / MOST_BINS), np.ceil(enough_s)))


def percentiles(values: Column) -> list[tuple[int, float]]:
    """Those percentiles that are not just the largest of these values."""
    shares = [share for share in SHARES if share == SHARES[0] or len(values) * (100 - share) >= 100]
    return [(share, float(np.percentile(values, share))) for share in shares]


def _points(starts_s: Column, latencies_ms: Column) -> alt.Chart:
    rows = [{"second": float(at_s), "ms": float(ms)} for at_s, ms in zip(starts_s, latencies_ms, strict=True)]
    drawn: alt.Chart = alt.Chart(alt.InlineData(values=rows)).mark_point(size=18, color=MUTED, opacity=0.6)
    return drawn


def _marks(marks: Sequence[Mark]) -> tuple[alt.Chart, alt.Chart]:
    data = alt.InlineData(values=[{"second": at_s, "text": text} for at_s, text in marks])
    x = alt.X("second:Q")
    rules = alt.Chart(data).mark_rule(color=EMPHASIS, strokeDash=[4, 3]).encode(x=x)
    labels = (
        alt.Chart(data)
        .mark_text(angle=270, align="right", baseline="bottom", dx=-4, dy=-3, color=EMPHASIS)
        .encode(x=x, y=alt.value(0), text="text:N")
    )
    return rules, labels
