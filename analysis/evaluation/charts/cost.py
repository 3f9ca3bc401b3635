"""Accuracy against what it costs: tokens, or seconds."""

from __future__ import annotations

from collections.abc import Sequence

import altair as alt

from analysis.charts.theme import INK, MUTED, TEXT_SIZE
from analysis.evaluation.baselines import ORACLE, RANDOM, RANDOM_AGENT
from analysis.evaluation.charts.picture import COLOUR, SHAPE, Picture

NO_CHOICE = (ORACLE, RANDOM, RANDOM_AGENT)
"""Baselines that nobody could run instead."""

WIDTH = 560
HEIGHT = 340
LABEL_STEP = 18 / HEIGHT
"""How far names stay apart, as a part of the chart's height."""
LABELS_AT = 1.10
AXIS_TO = 1.48
MARGIN = 0.08


def against_tokens(picture: Picture) -> alt.LayerChart:
    """Accuracy over the tokens of a question, prompts included."""
    return _against(picture, "tokens_per_question", "tokens per question, prompts included")


def against_latency(picture: Picture) -> alt.LayerChart:
    """Accuracy over the seconds of a question, without the time in queues."""
    return _against(picture, "latency_mean_s", "seconds per question, without queues")


def _against(picture: Picture, cost: str, title: str) -> alt.LayerChart:
    """A point for each contestant, and its name beside the chart, joined to it by a thin line.

    Names beside the points would cover one another: strategies that share their answers cost the same.
    """
    values = picture.values("accuracy", cost, without=NO_CHOICE)
    heights = [row["accuracy"] for row in values]
    low, high = min(heights), max(heights)
    span = max(high - low, 0.05)
    low, high = low - MARGIN * span, high + MARGIN * span
    most = max(row[cost] for row in values) or 1.0
    step = LABEL_STEP * (high - low)
    for row, height in zip(values, spread(heights, step, low, high), strict=True):
        row |= {"name_at": height, "name_x": most * LABELS_AT, "line_x": most * (LABELS_AT - 0.01)}
    x = alt.X(
        f"{cost}:Q",
        title=title,
        scale=alt.Scale(domain=[0, most * AXIS_TO], nice=False),
        axis=alt.Axis(tickCount=6),
    )
    y = alt.Y(
        "accuracy:Q",
        title="accuracy",
        axis=alt.Axis(format="%"),
        scale=alt.Scale(domain=[low, high], nice=False, zero=False),
    )
    base = alt.Chart(alt.InlineData(values=values))
    lines = base.mark_rule(strokeWidth=0.8, color=MUTED, opacity=0.7).encode(
        x=x, y=y, x2="line_x:Q", y2=alt.Y2("name_at:Q", title="accuracy")
    )
    names = base.mark_text(align="left", baseline="middle", fontSize=TEXT_SIZE, color=INK).encode(
        x="name_x:Q", y=alt.Y("name_at:Q", title="accuracy"), text="contestant:N"
    )
    points = base.mark_point(size=120, opacity=0.9).encode(x=x, y=y, color=COLOUR, shape=SHAPE)
    chart: alt.LayerChart = (lines + points + names).properties(
        title=picture.title, width=WIDTH, height=HEIGHT
    )
    return chart


def spread(heights: Sequence[float], step: float, low: float, high: float) -> list[float]:
    """Where names go so that any two are at least `step` apart, in the order of their heights.

    From the lowest up each is pushed as far as it must be; if the last one is over `high` all that are too
    high are pushed down again. With more of them than fit, they go below `low`.
    """
    order = sorted(range(len(heights)), key=lambda i: heights[i])
    placed = [0.0] * len(heights)
    floor = low
    for i in order:
        placed[i] = max(heights[i], floor)
        floor = placed[i] + step
    ceiling = high
    for i in reversed(order):
        placed[i] = min(placed[i], ceiling)
        ceiling = placed[i] - step
    return placed
