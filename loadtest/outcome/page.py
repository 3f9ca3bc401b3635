"""Writes `report.html`: what was run, what came of it, and the charts, on one page that loads nothing."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import altair as alt
from markupsafe import Markup

from analysis.charts.drawing.page import templates
from analysis.charts.drawing.render import html_chart, javascript, specification, write_images
from loadtest.chaos import Mark
from loadtest.outcome.charts import CHARTS, WITH_WARM_UP
from loadtest.outcome.measurements import Column, Measurements
from loadtest.outcome.metrics import METRICS
from loadtest.outcome.outputs import CONFIG
from loadtest.outcome.summary import Summary

TEMPLATES = Path(__file__).with_name("templates")


def run_charts(
    m: Measurements, met: Column | None, marks: Sequence[Mark], warm_up_s: float = 0.0
) -> dict[str, alt.typing.ChartType]:
    """The charts of a run for which there is something to draw, by name; `met` is None without objectives."""
    counted = m.intended_s >= warm_up_s
    after = (m.where(counted), None if met is None else met[counted])
    drawn = {
        name: draw(*((m, met) if name in WITH_WARM_UP else after), marks) for name, draw in CHARTS.items()
    }
    return {name: chart for name, chart in drawn.items() if chart is not None}


def write_page(
    folder: Path,
    title: str,
    sections: Sequence[tuple[str, Summary]],
    charts: Mapping[str, alt.typing.ChartType],
    marks: Sequence[Mark] = (),
) -> Path:
    """Writes the charts as PNG and SVG into `charts/`, and the page; returns where the page is.

    `sections` are the runs that it tells of: one, or the steps of a sweep.
    """
    specs = {name: specification(chart) for name, chart in charts.items()}
    (folder / "charts").mkdir(exist_ok=True)
    for name, spec in specs.items():
        write_images(spec, folder / "charts" / name)
    template = templates(TEMPLATES).get_template("report.html")
    page = template.render(
        title=title,
        sections=sections,
        marks=marks,
        metrics=METRICS,
        config=json.loads((folder / CONFIG).read_text()),
        charts=[Markup(html_chart(name, spec)) for name, spec in specs.items()],
        javascript=Markup(javascript()) if specs else "",
    )
    path = folder / "report.html"
    path.write_text(page, encoding="utf-8")
    return path
