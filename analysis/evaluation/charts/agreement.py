"""How often each two agents gave the same answer."""

from __future__ import annotations

import altair as alt
import numpy as np

from analysis.charts.theme import SEQUENTIAL
from analysis.evaluation.charts.picture import Picture
from analysis.evaluation.scores import agreement_rates

CELL = 74
DARK_UP_TO = 0.6
"""On the dark part of the scale text is white."""


def agreement(picture: Picture) -> alt.LayerChart | None:
    """A square table of rates, of the questions that both answered; None with fewer than two agents."""
    agents = picture.field.of("agent")
    if len(agents) < 2:
        return None
    rates = agreement_rates(agents)
    values = [
        {"one": one.name, "other": other.name, "rate": float(rates[i, j])}
        for i, one in enumerate(agents)
        for j, other in enumerate(agents)
        if i != j and np.isfinite(rates[i, j])
    ]
    names = [agent.name for agent in agents]
    base = alt.Chart(alt.InlineData(values=values)).encode(
        x=alt.X("one:N", sort=names, title=None, axis=alt.Axis(labelAngle=-35)),
        y=alt.Y("other:N", sort=names, title=None),
    )
    cells = base.mark_rect().encode(
        color=alt.Color(
            "rate:Q",
            scale=alt.Scale(scheme=SEQUENTIAL, domain=[0, 1]),
            legend=alt.Legend(format="%"),
            title="same answer",
        )
    )
    texts = base.mark_text().encode(
        text=alt.Text("rate:Q", format=".0%"),
        color=alt.condition(f"datum.rate <= {DARK_UP_TO}", alt.value("white"), alt.value("black")),
    )
    chart: alt.LayerChart = (cells + texts).properties(
        title=alt.Title(picture.title, subtitle="how often two agents give the same answer"),
        width=CELL * len(agents),
        height=CELL * len(agents),
    )
    return chart
