"""The report: one page, complete in itself, true to its rows."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from html.parser import HTMLParser

import pytest

from analysis.charts.mesh import MESH_CHARTS
from analysis.charts.tests.test_mesh_charts import PIECE, ROWS
from analysis.queries.tests.golden_results import GOLDEN
from analysis.report.collect import Answered, Findings
from analysis.report.headings import heading
from analysis.report.page import headline, page, share, shown, table
from analysis.report.sections import Section, sections
from analysis.report.span import TimeSpan, time_span
from schemas.errors import InvalidRequest
from services.client.moment import moment
from services.client.queries.query_file import shipped
from services.client.queries.trace.document import PieceDocument

pytestmark = pytest.mark.long

NOW = datetime(2026, 1, 31, 12, tzinfo=UTC)
HOUR = TimeSpan(NOW - timedelta(hours=1), NOW)
REQUESTS = [
    {"topology": "single", "requests": 7, "failed": 1, "p50_ms": 3.0, "p95_ms": 9.0, "p99_ms": 9.5},
    {"topology": "ensemble", "requests": 2, "failed": 0, "p50_ms": 8.0, "p95_ms": 21.0, "p99_ms": 30.0},
]


def answered(section: Section, rows: list[dict[str, object]]) -> Answered:
    columns = tuple(rows[0]) if rows else ("nothing",)
    return Answered(section, columns, tuple(rows))


def findings(*, empty: bool = False) -> Findings:
    """A report with all sections that have sample rows."""
    rows = {chart.query: ROWS[name] for name, chart in MESH_CHARTS.items()} | {"request_latency": REQUESTS}
    answers = tuple(answered(s, [] if empty else rows.get(s.query, [])) for s in sections(HOUR))
    if empty:
        return Findings(HOUR, answers)
    piece = PieceDocument(**{**PIECE, "instance": "a-1"})
    return Findings(HOUR, answers, "r1", (piece,))


class Resources(HTMLParser):
    """What a page would load."""

    def __init__(self) -> None:
        super().__init__()
        self.loaded: list[str] = []
        self.charts = 0

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.loaded += [f"{tag} {name}" for name, value in attrs if name in ("src", "href") and value]
        self.charts += tag == "div" and any(n == "id" and (v or "").startswith("chart-") for n, v in attrs)


def test_the_page_has_every_chart_and_loads_nothing() -> None:
    text = page(findings())
    seen = Resources()
    seen.feed(text)
    assert seen.loaded == []
    assert seen.charts == len(MESH_CHARTS) + 1
    assert "@import" not in text and "url(" not in text.split("</style>")[0]
    assert "2026-01-31 11:00:00 to 2026-01-31 12:00:00 UTC" in text


@pytest.mark.soak
def test_where_nothing_happened_it_says_so() -> None:
    text = page(findings(empty=True))
    assert "No pipeline ran." in text and "Nothing was retried" in text
    seen = Resources()
    seen.feed(text)
    assert seen.charts == 0


def test_the_figures_at_the_top_are_sums_of_the_tables() -> None:
    figures = headline(findings().answers)
    assert (figures["requests"], figures["answered"], figures["slowest p95, ms"]) == ("10", "90.0%", "21")
    assert headline(findings(empty=True).answers)["answered"] == "-"


@pytest.mark.parametrize(
    ("part", "whole", "said"),
    [
        (2_488, 2_489, "99.96%"),
        (9, 10, "90.0%"),
        (999_999, 1_000_000, "99.9999%"),
        (10**9 - 1, 10**9, "under 100% (1 are missing)"),
        (3, 3, "100.0%"),
        (0, 3, "0.0%"),
        (0, 0, "-"),
    ],
)
def test_not_all_is_never_called_all(part: int, whole: int, said: str) -> None:
    assert share(part, whole) == said


def test_what_the_figures_leave_out_stands_above_them() -> None:
    noon, later = "2026-01-31T11:01:00", "2026-01-31T11:02:00.5"
    found = (
        ("open", "single", 6, noon),
        ("missing", "101 to 400", 300, None),
        ("dropped", "<b>agent-1", 2, noon),
    )
    rows = tuple(
        {"what": what, "who": who, "times": times, "from_at": since, "to_at": later}
        for what, who, times, since in found
    )
    text = page(replace(findings(), left_out=rows))
    assert text.index("leave out") < text.index('class="figures"')
    assert "6 requests (single), accepted from 2026-01-31 11:01:00 to 2026-01-31 11:02:00" in text
    assert "300 events (numbers 101 to 400)" in text and "&lt;b&gt;agent-1" in text
    assert "leave out" not in page(findings())


@pytest.mark.parametrize("section", sections(HOUR), ids=lambda section: section.query)
def test_no_heading_is_a_name_of_sql(section: Section) -> None:
    columns = json.loads((GOLDEN / f"{section.query}.json").read_text())["columns"]
    headings = [heading(column) for column in columns]
    assert len(set(headings)) == len(columns)
    assert not [text for text in headings if "_" in text]


def test_a_name_in_a_table_is_text_and_no_markup() -> None:
    text = table(answered(Section("x", "x"), [{"model": "<script>alert(1)</script>", "tasks": 3}]))
    assert "<script>" not in text and "&lt;script&gt;" in text
    assert re.search(r'<td class="n">3</td>', text)


@pytest.mark.parametrize(
    ("value", "text"),
    [(None, "-"), (12, "12"), (12_345, "12,345"), (0.123456, "0.123"), (1234.6, "1,235"),
     ("a", "a"), (True, "True")],
)  # fmt: skip
def test_values_are_shown_with_three_figures(value: object, text: str) -> None:
    assert shown(value) == text


@pytest.mark.parametrize("section", sections(HOUR), ids=lambda section: section.query)
def test_every_section_gives_its_query_what_it_takes(section: Section) -> None:
    query = shipped(section.query)
    assert {parameter.name for parameter in query.parameters} == {*HOUR.parameters, *section.parameters}
    assert section.chart is None or MESH_CHARTS[section.chart].query == section.query


def test_times_are_ago_or_moments() -> None:
    assert moment("90m", NOW, "since") == NOW - timedelta(minutes=90)
    assert moment("1.5h", NOW, "since") == moment("90m", NOW, "since")
    assert moment("2026-01-31T10:00", NOW, "since") == datetime(2026, 1, 31, 10, tzinfo=UTC)
    assert moment("2026-01-31T10:00+02:00", NOW, "since") == datetime(2026, 1, 31, 8, tzinfo=UTC)


@pytest.mark.parametrize(("since", "until", "field"), [
    ("yesterday", None, "since"), ("1h", "soon", "until"), ("1h", "2h", "since"), ("", None, "since"),
])  # fmt: skip
def test_what_is_no_time_is_refused_with_the_field(since: str, until: str | None, field: str) -> None:
    with pytest.raises(InvalidRequest) as refused:
        time_span(since, until, NOW)
    assert refused.value.field == field


@pytest.mark.parametrize("seconds", [10, 3_600, 86_400, 30 * 86_400])
def test_a_chart_over_time_has_a_hundred_steps_or_so(seconds: int) -> None:
    span = TimeSpan(NOW - timedelta(seconds=seconds), NOW)
    assert span.seconds / span.step_s <= 120
