"""A chart as PNG, SVG and a page that needs no network."""

from __future__ import annotations

import json
import re
import struct
from html.parser import HTMLParser
from pathlib import Path
from xml.etree import ElementTree

import altair as alt
import pytest

from analysis.charts.drawing.render import html_chart, render, specification
from analysis.charts.drawing.theme import CATEGORIES, CONFIG


@pytest.fixture(scope="module")
def chart() -> alt.Chart:
    """Two bars, one of them named as no script should end."""
    rows = [{"agent": "alpha </script>", "share": 0.25}, {"agent": "beta", "share": 0.75}]
    bars = alt.Chart(alt.InlineData(values=rows)).mark_bar()
    chart: alt.Chart = bars.encode(x="share:Q", y="agent:N", color="agent:N")
    return chart


@pytest.fixture(scope="module")
def written(chart: alt.Chart, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, Path]:
    """The chart's three files, in a folder that was not there."""
    return render(chart, tmp_path_factory.mktemp("charts") / "new" / "share.png")


def test_a_png_is_twice_as_large_as_its_svg_and_its_ground_is_not_transparent(
    written: tuple[Path, Path, Path],
) -> None:
    png, svg, _ = written
    width, height = struct.unpack(">II", png.read_bytes()[16:24])
    drawn = ElementTree.parse(svg).getroot()
    assert (width, height) == (
        round(2 * float(drawn.attrib["width"])),
        round(2 * float(drawn.attrib["height"])),
    )
    assert 'fill="white"' in svg.read_text()


def test_the_labels_are_in_the_svg_as_text(written: tuple[Path, Path, Path]) -> None:
    texts = {element.text for element in ElementTree.parse(written[1]).iter() if element.tag.endswith("text")}
    assert {"alpha </script>", "beta", "share"} <= texts


class _Tags(HTMLParser):
    """The tags of a page, in order, and the names of all their attributes."""

    def __init__(self) -> None:
        super().__init__()
        self.names: list[str] = []
        self.attributes: set[str] = set()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.names.append(tag)
        self.attributes |= {name for name, _ in attrs}


def test_the_page_brings_its_scripts_along_and_names_no_address_to_load_from(
    written: tuple[Path, Path, Path],
) -> None:
    reader = _Tags()
    reader.feed(written[2].read_text())
    assert reader.names == [
        "html", "head", "meta", "meta", "title", "style", "script", "body", "div", "script",
    ]  # fmt: skip
    assert not {"src", "href"} & reader.attributes
    assert "vegaEmbed" in written[2].read_text()


def test_a_chart_in_a_page_is_the_chart_itself(chart: alt.Chart) -> None:
    part = html_chart("one", specification(chart))
    found = re.search(r'vegaEmbed\("#one", (.*), \{"actions"', part)
    assert found is not None
    assert json.loads(found[1]) == specification(chart)


def test_what_a_chart_says_itself_goes_before_the_theme(chart: alt.Chart) -> None:
    config = specification(chart.configure_axis(labelFontSize=40))["config"]
    assert config["axis"]["labelFontSize"] == 40
    assert config["axis"]["titleFontSize"] == CONFIG["axis"]["titleFontSize"]
    assert config["range"]["category"] == list(CATEGORIES)


def test_rendering_leaves_the_theme_of_others_alone(chart: alt.Chart) -> None:
    before = alt.theme.active
    specification(chart)
    assert alt.theme.active == before


def _luminance(colour: str) -> float:
    """Relative luminance after WCAG 2.1."""
    channels = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return sum(weight * c for weight, c in zip((0.2126, 0.7152, 0.0722), linear, strict=True))


def test_every_colour_stands_out_from_the_white_ground() -> None:
    for colour in CATEGORIES:
        assert 1.05 / (_luminance(colour) + 0.05) > 2.0, colour
