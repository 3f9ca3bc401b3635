"""Accuracy against what it costs: tokens, or seconds; lines are 95 % Wilson intervals of the accuracy."""

from __future__ import annotations

from collections.abc import Sequence

import altair as alt

from analysis.charts.drawing.theme import INK, MUTED, TEXT_SIZE
from analysis.charts.evaluation.picture import COLOUR, SHAPE, Picture, why_absent
from analysis.evaluation.contestants.baselines import ORACLE, RANDOM, RANDOM_AGENT
from analysis.evaluation.contestants.routers import TOPIC_BEST

NO_CHOICE = (ORACLE, RANDOM, RANDOM_AGENT, TOPIC_BEST)
"""Baselines that nobody could run instead."""

WIDTH = 560
HEIGHT = 340
LABEL_STEP = 18 / HEIGHT
"""How far names stay apart, as a part of the chart's height."""
LETTER, GAP = 8, 12
"""Pixels: of a letter, and between a point and its name."""
MARGIN = 0.08


def against_tokens(picture: Picture) -> alt.LayerChart | None:
    """Accuracy over the tokens of a question, prompts included."""
    return _against(picture, "tokens_per_question", "tokens", "tokens per question, prompts included")


def against_latency(picture: Picture) -> alt.LayerChart | None:
    """Accuracy over the seconds of a question, without the time in queues.

    Who was measured under another load than the questions is left out, and the chart says so. None if that is
    everybody.
    """
    return _against(picture, "latency_mean_s", "seconds", "seconds per question, without queues")


def _against(picture: Picture, cost: str, word: str, title: str) -> alt.LayerChart | None:
    """A point for each contestant, and its name beside it; a thin line joins them where it had to move."""
    columns = ("accuracy", "wilson_low", "wilson_high", cost)
    values = [row for row in picture.values(*columns, without=NO_CHOICE) if row[cost] is not None]
    if not values:
        return None
    heights = [row["accuracy"] for row in values]
    low, high = min(row["wilson_low"] for row in values), max(row["wilson_high"] for row in values)
    span = max(high - low, 0.05)
    low, high = low - MARGIN * span, high + MARGIN * span
    widths = [GAP + LETTER * len(row["contestant"]) for row in values]
    # The axis goes so far that every name fits into the chart.
    reach = max(row[cost] * WIDTH / (WIDTH - width) for row, width in zip(values, widths, strict=True)) or 1.0
    places = [row[cost] / reach * WIDTH for row in values]
    step = LABEL_STEP * (high - low)
    for together in overlapping(places, widths):
        spread_out = spread([heights[i] for i in together], step, low, high)
        for i, height in zip(together, spread_out, strict=True):
            values[i] |= {"name_at": height, "name_x": (places[i] + GAP) / WIDTH * reach}
    x = alt.X(
        f"{cost}:Q",
        title=title,
        scale=alt.Scale(domain=[0, reach], nice=False),
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
        x=x, y=y, x2="name_x:Q", y2=alt.Y2("name_at:Q", title="accuracy")
    )
    names = base.mark_text(align="left", baseline="middle", dx=2, fontSize=TEXT_SIZE, color=INK).encode(
        x="name_x:Q", y=alt.Y("name_at:Q", title="accuracy"), text="contestant:N"
    )
    points = base.mark_point(size=120, opacity=0.9).encode(x=x, y=y, color=COLOUR, shape=SHAPE)
    intervals = base.mark_rule(strokeWidth=1.5, opacity=0.45).encode(
        x=x, y=alt.Y("wilson_low:Q", title="accuracy"), y2="wilson_high:Q", color=COLOUR
    )
    chart: alt.LayerChart = (intervals + lines + points + names).properties(
        title=alt.TitleParams(f"Accuracy against {word}", subtitle=_subtitle(picture, cost)),
        width=WIDTH,
        height=HEIGHT,
    )
    return chart


def _subtitle(picture: Picture, cost: str) -> list[str]:
    """What was asked, and who is not shown and why."""
    absent = why_absent(picture.rows) if cost == "latency_mean_s" else []
    return [f"{picture.title}; lines: 95 % Wilson interval", *absent]


def overlapping(places: Sequence[float], widths: Sequence[float]) -> list[list[int]]:
    """Which names would stand one in the other if they were at one height: groups of their indices.

    A name begins at its place and is so wide; both in pixels.
    """
    groups: list[list[int]] = []
    end = 0.0
    for i in sorted(range(len(places)), key=lambda i: places[i]):
        if groups and places[i] < end:
            groups[-1].append(i)
        else:
            groups.append([i])
        end = max(end, places[i] + widths[i])
    return groups


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
