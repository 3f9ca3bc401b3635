"""How often each two agents gave the same answer."""

from __future__ import annotations

import altair as alt
import numpy as np

from analysis.charts.evaluation.cells import shares_in_cells
from analysis.charts.evaluation.picture import Picture
from analysis.evaluation.scoring.scores import agreement_rates

CELL = 74


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
    chart: alt.LayerChart = shares_in_cells(base, "rate", "same answer").properties(
        title=alt.Title(picture.title, subtitle="how often two agents give the same answer"),
        width=CELL * len(agents),
        height=CELL * len(agents),
    )
    return chart
