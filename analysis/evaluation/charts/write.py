"""Writes the charts of a run: each alone as PNG and SVG, and the main ones of all benchmarks as one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import altair as alt

from analysis.charts.render import png_image, png_of, specification, svg_image
from analysis.evaluation.charts import CHARTS, Picture
from analysis.evaluation.charts.accuracy import accuracy
from analysis.evaluation.charts.agreement import agreement
from analysis.evaluation.charts.cost import against_tokens

FOLDER = "charts"
METRICS_FILE = "metrics.png"
IN_METRICS = (accuracy, against_tokens, agreement)


@dataclass(frozen=True)
class Drawn:
    """A chart that was written, for the report."""

    benchmark: str
    name: str
    svg: str


def write_charts(folder: Path, pictures: Sequence[Picture]) -> list[Drawn]:
    """Writes `charts/<benchmark>-<chart>` and `metrics.png`, and returns the single charts."""
    (folder / FOLDER).mkdir(exist_ok=True)
    drawn = []
    for picture in pictures:
        for name, chart_of in CHARTS.items():
            if (chart := chart_of(picture)) is None:
                continue
            spec = specification(chart)
            path = folder / FOLDER / f"{picture.field.benchmark}-{name}"
            svg = svg_image(spec)
            path.with_suffix(".svg").write_text(svg, encoding="utf-8")
            path.with_suffix(".png").write_bytes(png_of(svg))
            drawn.append(Drawn(picture.field.benchmark, name, svg))
    (folder / METRICS_FILE).write_bytes(png_image(specification(metrics(pictures))))
    return drawn


def metrics(pictures: Sequence[Picture]) -> alt.VConcatChart:
    """A row for each benchmark: accuracy, accuracy against tokens, agreement."""
    rows = []
    for picture in pictures:
        charts = [chart for chart_of in IN_METRICS if (chart := chart_of(picture)) is not None]
        rows.append(alt.hconcat(*charts, spacing=40).resolve_scale(color="independent", shape="independent"))
    all_rows: alt.VConcatChart = alt.vconcat(*rows, spacing=40).resolve_scale(
        color="independent", shape="independent"
    )
    return all_rows
