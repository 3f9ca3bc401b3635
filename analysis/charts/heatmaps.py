"""Two heatmaps: how long each pair takes, and how fast it generates."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import altair as alt

from analysis.charts.drawing.render import specification, write_images
from analysis.charts.drawing.theme import INK, SEQUENTIAL, TEXT_SIZE
from analysis.matrix.averages import PairAverage, figure

CELL_WIDTH, CELL_HEIGHT, LETTER_WIDTH = 130, 56, 9


@dataclass(frozen=True)
class Measure:
    """One thing to draw: a field of `PairAverage`, its title, its unit, and what is good."""

    field: str
    title: str
    unit: str
    reverse: bool


HEATMAPS: Mapping[str, Measure] = {
    "total_time": Measure("total_time_s", "Total time", "s", reverse=True),
    "tokens_per_s": Measure(
        "tokens_per_s", "Tokens per second, both peers together", "tokens/s", reverse=False
    ),
}
"""The name of each chart's file, and what it shows. The brighter, the better."""


def heatmap(pairs: Sequence[PairAverage], measure: Measure) -> alt.typing.ChartType:
    """Generators down, summarizers across; a pair that never succeeded stays empty.

    A cell has the mean as the table says it, and over how many measurements.
    """
    rows = [
        {
            **pair.model_dump(),
            "said": figure(getattr(pair, measure.field), measure.unit),
            "n": f"n = {pair.cells - pair.failed}",
        }
        for pair in pairs
        if getattr(pair, measure.field) is not None
    ]
    values = [row[measure.field] for row in rows]
    middle = (min(values) + max(values)) / 2 if values else 0.0
    generators = list(dict.fromkeys(pair.generator for pair in pairs))
    summarizers = list(dict.fromkeys(pair.summarizer for pair in pairs))
    base = alt.Chart(alt.InlineData(values=rows)).encode(
        x=alt.X(
            "summarizer:N", sort=summarizers, scale=alt.Scale(domain=summarizers),
            title="Summarizer", axis=alt.Axis(orient="top", labelAngle=0, grid=False),
        ),
        y=alt.Y(
            "generator:N", sort=generators, scale=alt.Scale(domain=generators),
            title="Generator", axis=alt.Axis(grid=False),
        ),
    )  # fmt: skip
    colour = alt.Color(
        f"{measure.field}:Q",
        scale={"scheme": SEQUENTIAL, "reverse": measure.reverse, "nice": False},
        legend=alt.Legend(title=measure.unit, gradientLength=max(80, len(generators) * CELL_HEIGHT - 30)),
    )
    # Viridis is dark at one end and bright at the other: the label stands out on both.
    bright = f"datum.{measure.field} {'<' if measure.reverse else '>'} {middle}"
    ink = alt.condition(bright, alt.value(INK), alt.value("white"))
    cells = base.mark_rect().encode(color=colour)
    means = base.mark_text(fontSize=15, dy=-7).encode(text="said:N", color=ink)
    counts = base.mark_text(fontSize=TEXT_SIZE - 2, dy=11).encode(text="n:N", color=ink)
    return alt.layer(cells, means, counts).properties(
        title=alt.Title(measure.title, subtitle="mean of n measurements of each pair; brighter is better"),
        width=max(2, len(summarizers)) * max(CELL_WIDTH, LETTER_WIDTH * max(map(len, summarizers))),
        height=len(generators) * CELL_HEIGHT,
    )


def write_heatmaps(pairs: Sequence[PairAverage], folder: Path) -> tuple[Path, ...]:
    """Writes each chart as `<name>.png` and `<name>.svg`, and returns the paths of the first."""
    written = []
    for name, measure in HEATMAPS.items():
        write_images(specification(heatmap(pairs, measure)), folder / name)
        written.append(folder / f"{name}.png")
    return tuple(written)
