"""Requests each second: those that met the objectives, those that were only answered, those that failed.

Where no objective was given, they were answered or failed.
"""

from __future__ import annotations

from typing import Any

import altair as alt
import numpy as np
import numpy.typing as npt

from analysis.charts.drawing.theme import CATEGORIES, EMPHASIS, MUTED
from analysis.charts.load.latency_over_time import MOST_BINS

Column = npt.NDArray[Any]

STATES = ("met the objectives", "answered, but late", "failed")
WITHOUT_OBJECTIVES = ("answered", "failed")
COLOURS = {**dict.fromkeys((STATES[0], "answered"), CATEGORIES[0]), STATES[1]: MUTED, "failed": EMPHASIS}


def goodput(starts_s: Column, answered: Column, met: Column | None) -> alt.Chart:
    """Stacked, by the second in which a request was meant to start: whether it was `answered`, and `met` the
    objectives, None without any."""
    width_s = max(1.0, float(np.ceil(starts_s.max() / MOST_BINS)))
    bins = np.floor(starts_s / width_s)
    names = WITHOUT_OBJECTIVES if met is None else STATES
    states = (
        np.where(answered, *names)
        if met is None
        else np.where(met, STATES[0], np.where(answered, STATES[1], STATES[2]))
    )
    rows = [
        {
            "from": float(number * width_s),
            "to": float((number + 1) * width_s),
            "state": state,
            "order": order,
            "per_s": float(((bins == number) & (states == state)).sum() / width_s),
        }
        for number in np.unique(bins)
        for order, state in enumerate(names)
    ]
    drawn: alt.Chart = (
        alt.Chart(alt.InlineData(values=rows))
        .mark_bar()
        .encode(
            x=alt.X("from:Q", bin="binned", title="start of the request (s)"),
            x2="to:Q",
            y=alt.Y("per_s:Q", title="requests per second", stack="zero"),
            color=alt.Color(
                "state:N",
                title=None,
                scale=alt.Scale(domain=list(names), range=[COLOURS[name] for name in names]),
            ),
            order=alt.Order("order:Q"),
        )
        .properties(title="Answered and failed requests" if met is None else "Goodput", width=640)
    )
    return drawn
