"""When not to answer: how right the surest decisions are, and how far a confidence can be believed."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import altair as alt

from analysis.charts.drawing.theme import MUTED
from analysis.charts.evaluation.picture import Picture
from analysis.evaluation.scoring.scores import Contestant
from analysis.evaluation.scoring.selective import sure_and_right
from analysis.statistics.calibration import reliability, selective_scores

POINTS = 100
SIZE = 360


def risk_coverage(picture: Picture) -> alt.Chart | None:
    """The risk, 1 - accuracy, if only the surest part is decided; None where nothing says how sure it is."""
    values = [value for each in _sure(picture) for value in _curve(each)]
    if not values:
        return None
    chart: alt.Chart = (
        alt.Chart(alt.InlineData(values=values))
        .mark_line(strokeWidth=2)
        .encode(
            x=alt.X("coverage:Q", axis=alt.Axis(format="%"), title="coverage: the surest decisions"),
            y=alt.Y("risk:Q", axis=alt.Axis(format="%"), title="risk: wrong among them"),
            color=alt.Color("strategy:N", title=None),
            strokeDash=alt.StrokeDash("strategy:N", title=None),
        )
        .properties(
            title=alt.Title(picture.title, subtitle="risk against coverage, by confidence"),
            width=SIZE,
            height=SIZE,
        )
    )
    return chart


def _curve(contestant: Contestant) -> Iterator[dict[str, Any]]:
    selected = selective_scores(*sure_and_right(contestant))
    step = max(1, selected.size // POINTS)
    for count in (*range(step, selected.size, step), selected.size):
        yield {
            "strategy": contestant.name,
            "coverage": count / selected.size,
            "risk": 1 - float(selected[count - 1]),
        }


def reliability_diagram(picture: Picture) -> alt.LayerChart | None:
    """Accuracy against confidence in ten bins; on the dashed line a confidence says how often it is right."""
    values = [
        {
            "strategy": each.name,
            "confidence": found.confidence,
            "accuracy": found.score,
            "decisions": found.count,
        }
        for each in _sure(picture)
        for found in reliability(*sure_and_right(each))
    ]
    if not values:
        return None
    line = alt.Chart(alt.InlineData(values=[{"at": 0.0}, {"at": 1.0}]))
    diagonal = line.mark_line(strokeDash=[5, 4], color=MUTED).encode(x="at:Q", y="at:Q")
    whole = alt.Scale(domain=[0, 1])
    points = (
        alt.Chart(alt.InlineData(values=values))
        .mark_line(point=True)
        .encode(
            x=alt.X("confidence:Q", scale=whole, axis=alt.Axis(format="%"), title="confidence"),
            y=alt.Y("accuracy:Q", scale=whole, axis=alt.Axis(format="%"), title="accuracy"),
            color=alt.Color("strategy:N", title=None),
            strokeDash=alt.StrokeDash("strategy:N", title=None),
        )
    )
    chart: alt.LayerChart = (diagonal + points).properties(
        title=alt.Title(picture.title, subtitle="reliability of the confidence, in ten bins"),
        width=SIZE,
        height=SIZE,
    )
    return chart


def _sure(picture: Picture) -> list[Contestant]:
    """The strategies that say of every decision how sure it is."""
    return [
        each for each in picture.field.of("strategy") if all(o.confidence is not None for o in each.outcomes)
    ]
