"""Writes a chart as PNG, SVG and HTML. All three are made here, by vl-convert: no browser, no network."""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any, TypeAlias

import altair as alt
import vl_convert as vlc

from analysis.charts.drawing.page import framed
from analysis.charts.drawing.theme import CONFIG

Specification: TypeAlias = dict[str, Any]
"""A Vega-Lite chart as a JSON document."""

PNG_SCALE = 2.0
"""Twice as many pixels a side as the chart's own size: sharp in print and on dense screens."""

VEGA_LITE = ".".join(alt.SCHEMA_VERSION.removeprefix("v").split(".")[:2])


def render(chart: alt.typing.ChartType, path: Path) -> tuple[Path, Path, Path]:
    """Writes `path` with the endings .png, .svg and .html, and returns these three paths.

    An ending that `path` has is replaced; its folder is made. The HTML works without a network.
    """
    spec = specification(chart)
    png, svg, page = (path.with_suffix(ending) for ending in (".png", ".svg", ".html"))
    path.parent.mkdir(parents=True, exist_ok=True)
    write_images(spec, path)
    page.write_text(html_page(path.stem, [spec]), encoding="utf-8")
    return png, svg, page


def write_images(spec: Specification, path: Path) -> str:
    """Writes `path` with the endings .svg and .png, in a folder that is there; returns the SVG document."""
    drawing = svg_image(spec)
    path.with_suffix(".svg").write_text(drawing, encoding="utf-8")
    path.with_suffix(".png").write_bytes(png_of(drawing))
    return drawing


def specification(chart: alt.typing.ChartType) -> Specification:
    """The chart with the theme under it: what the chart says itself goes first."""
    with alt.theme.enable("none"), alt.data_transformers.disable_max_rows():
        spec: Specification = chart.to_dict()
    spec["config"] = _merged(CONFIG, spec.get("config", {}))
    return spec


def svg_image(spec: Specification) -> str:
    """The chart as an SVG document."""
    return vlc.vegalite_to_svg(spec, vl_version=VEGA_LITE)


def png_image(spec: Specification) -> bytes:
    """The chart as a PNG."""
    return png_of(svg_image(spec))


def png_of(drawing: str) -> bytes:
    """An SVG document as a PNG: to lay a chart out takes longest, and need not be done twice."""
    return vlc.svg_to_png(drawing, scale=PNG_SCALE)


def html_page(title: str, specs: Sequence[Specification]) -> str:
    """A page with these charts, one below the other, that loads nothing."""
    charts = "\n".join(html_chart(f"chart-{i}", spec) for i, spec in enumerate(specs))
    return framed(title, charts, "body { margin: 1em; }", javascript())


def html_chart(name: str, spec: Specification) -> str:
    """The part of a page that draws a chart, once `javascript` stands in a script of its head."""
    # A `</script>` within a string of the data would end the script.
    document = json.dumps(spec, ensure_ascii=False).replace("</", "<\\/")
    options = json.dumps({"actions": False, "renderer": "svg"})
    return f'<div id="{name}"></div>\n<script>vegaEmbed("#{name}", {document}, {options});</script>'


@cache
def javascript() -> str:
    """Vega, Vega-Lite and Vega-Embed as one script that defines `vegaEmbed`. It takes seconds to make."""
    bundle = vlc.javascript_bundle("window.vegaEmbed = vegaEmbed;", vl_version=VEGA_LITE)
    return bundle.replace("</script", "<\\/script")


def _merged(under: Specification, over: Specification) -> Specification:
    """Both configurations; where both say something, `over` counts."""
    merged = dict(under)
    for key, value in over.items():
        beneath = merged.get(key)
        if isinstance(value, dict) and isinstance(beneath, dict):
            merged[key] = _merged(beneath, value)
        else:
            merged[key] = value
    return merged
