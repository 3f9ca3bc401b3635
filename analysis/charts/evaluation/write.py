"""Writes the charts of a run as PNG and SVG, and the figure of all benchmarks together once more."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from analysis.charts.drawing.render import png_image, specification, write_images
from analysis.charts.evaluation import CHARTS, Picture
from analysis.charts.evaluation.metrics import metrics

FOLDER = "charts"
METRICS_FILE = "metrics.png"


@dataclass(frozen=True)
class Drawn:
    """A chart that was written, for the report."""

    benchmark: str
    name: str
    svg: str


def write_charts(folder: Path, pictures: Sequence[Picture]) -> list[Drawn]:
    """Writes `charts/<benchmark>-<chart>` and `metrics.png`, and returns the single charts.

    The last of `pictures` is that of all benchmarks.
    """
    (folder / FOLDER).mkdir(exist_ok=True)
    drawn = []
    for picture in pictures:
        for name, chart_of in CHARTS.items():
            if (chart := chart_of(picture)) is None:
                continue
            path = folder / FOLDER / f"{picture.field.benchmark}-{name}"
            svg = write_images(specification(chart), path)
            drawn.append(Drawn(picture.field.benchmark, name, svg))
    (folder / METRICS_FILE).write_bytes(png_image(specification(metrics(pictures[-1]))))
    return drawn
