"""How latencies are distributed: bins of equal ratios, as they differ by orders of magnitude."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import altair as alt
import numpy as np
import numpy.typing as npt

from analysis.charts.drawing.theme import EMPHASIS

Column = npt.NDArray[Any]
FEWEST_BINS, MOST_BINS = 6, 50
STEPS = (1, 2, 5)
MOST_DECADES = 3
"""Over more than these only the tens are named."""


def bins_for(count: int) -> int:
    """How many bins show `count` values without a comb: twice the cube root (Rice's rule)."""
    return int(np.clip(np.ceil(2 * count ** (1 / 3)), FEWEST_BINS, MOST_BINS))


def ticks(low: float, high: float) -> list[float]:
    """Round numbers from `low` to `high` and the first on either side: 1, 2, 5, 10 ..., or powers of ten."""
    first, last = int(np.floor(np.log10(low))), int(np.ceil(np.log10(high)))
    steps = STEPS if np.log10(high / low) <= MOST_DECADES else STEPS[:1]
    all_ticks = [step * 10.0**power for power in range(first - 1, last + 1) for step in steps]
    below = [tick for tick in all_ticks if tick <= low]
    above = [tick for tick in all_ticks if tick >= high]
    return [tick for tick in all_ticks if max(below) <= tick <= min(above)]


def histogram(
    values: Column, title: str, axis: str, said: Callable[[float], str]
) -> alt.typing.ChartType | None:
    """Median and 99th percentile are marked, and `said` as texts; None where all values are one."""
    values = values[values > 0]
    if len(values) < 2 or values.min() == values.max():
        return None
    edges = np.geomspace(values.min(), values.max(), bins_for(len(values)) + 1)
    counts, _ = np.histogram(values, bins=edges)
    named = ticks(float(values.min()), float(values.max()))
    bars = alt.InlineData(
        values=[
            {"from": float(low), "to": float(high), "count": int(count)}
            for low, high, count in zip(edges[:-1], edges[1:], counts, strict=True)
        ]
    )
    x = alt.X(
        "from:Q",
        bin="binned",
        title=axis,
        scale=alt.Scale(type="log", nice=False, domain=[named[0], named[-1]]),
        axis=alt.Axis(values=named, format="~g", labelOverlap=False),
    )
    y = alt.Y("count:Q", title="count", scale=alt.Scale(domainMax=float(counts.max()) * 1.25))
    columns = alt.Chart(bars).mark_bar(stroke="white").encode(x=x, x2="to:Q", y=y)
    median, high = (float(value) for value in np.percentile(values, (50, 99)))
    rules = (*_rule(f"p50 {said(median)}", median, row=0), *_rule(f"p99 {said(high)}", high, row=1))
    subtitle = f"{len(values):,} values, the largest {said(float(values.max()))} ms"
    return alt.layer(columns, *rules).properties(title=alt.TitleParams(title, subtitle=subtitle), width=640)


def _rule(name: str, ms: float, row: int) -> tuple[alt.Chart, alt.Chart]:
    """A line at a value, with its name beside it, in a row of its own."""
    data = alt.InlineData(values=[{"ms": ms, "name": name}])
    base = alt.Chart(data).encode(x="ms:Q")
    text = base.mark_text(align="right", dx=-5, dy=8 + 18 * row, color=EMPHASIS)
    return base.mark_rule(color=EMPHASIS), text.encode(y=alt.value(0), text="name:N")
