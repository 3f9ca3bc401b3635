"""The page: HTML with everything in it. Pure: takes findings, gives text."""

from __future__ import annotations

import html
from collections.abc import Iterable
from typing import Any

from analysis.charts.drawing.page import framed
from analysis.charts.drawing.render import html_chart, javascript, specification
from analysis.charts.mesh import MESH_CHARTS
from analysis.charts.mesh.request_timeline import request_timeline
from analysis.report.collect import Answered, Findings
from analysis.report.headings import heading

_STYLE = """\
body { font: 15px/1.5 "DejaVu Sans", Verdana, Arial, sans-serif;
  max-width: 62rem; margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.5rem; margin-bottom: 0; }
h2 { font-size: 1.15rem; margin-top: 2.5rem; border-bottom: 1px solid #e3e3e3; }
.when, .empty, .note { color: #5d5d5d; }
.warning { border-left: 4px solid #d55e00; padding: .4rem 1rem; background: #fdf3ec; }
.figures { display: flex; flex-wrap: wrap; gap: 1rem; margin: 1.5rem 0; padding: 0; list-style: none; }
.figures li { border: 1px solid #e3e3e3; border-radius: 6px; padding: .6rem 1rem; min-width: 7rem; }
.figures b { display: block; font-size: 1.4rem; }
table { font-size: .85rem; margin: 1rem 0; }
th, td { padding: .25rem .8rem .25rem 0; text-align: left; white-space: nowrap; }
th { border-bottom: 2px solid #9a9a9a; }
td { border-bottom: 1px solid #e3e3e3; }
td.n, th.n { text-align: right; font-variant-numeric: tabular-nums; }
"""

_CONTENT = """\
<h1>{title}</h1>
<p class="when">{when}</p>
{left_out}
{figures}
{sections}
"""

TITLE = "Choir: what the mesh did"
NOTHING = "-"
MOST_DIGITS = 7
SENTENCES = {
    "open": "{times} requests ({who}), accepted {between}, have no end yet and are in no figure of requests",
    "missing": "{times} events (numbers {who}), {between}: the stream dropped them before they were stored",
    "dropped": "{times} events of {who}, {between}: it could not send them",
    "unread": "{times} events of the kind {who}, {between}: no table holds them, see unread_events",
}
"""What is said of each row of `left_out.sql`."""


def page(findings: Findings) -> str:
    """The whole document."""
    span = findings.span
    when = f"{span.since:%Y-%m-%d %H:%M:%S} to {span.until:%Y-%m-%d %H:%M:%S} UTC"
    parts = [_section(answered) for answered in findings.answers]
    content = _CONTENT.format(
        title=TITLE,
        when=when,
        left_out=_left_out(findings),
        figures=_figures(findings),
        sections="\n".join((*parts, _slowest(findings))),
    )
    return framed(TITLE, content, _STYLE, javascript())


def headline(answers: Iterable[Answered]) -> dict[str, str]:
    """The few figures at the top, from the rows of the sections."""
    rows = {answered.section.query: answered.rows for answered in answers}
    requests, steps = rows.get("request_latency", ()), rows.get("activity", ())
    models = rows.get("latency_by_model", ())
    answered, failed = _sum(requests, "requests"), _sum(requests, "failed")
    total = answered + failed
    busiest = max((row["requests_per_s"] for row in steps), default=None)
    worst = max((row["p95_ms"] for row in requests if row["p95_ms"] is not None), default=None)
    return {
        "requests": shown(total),
        "answered": share(answered, total),
        "failed": shown(failed),
        "tasks": shown(_sum(models, "tasks") + _sum(models, "failed")),
        "slowest p95, ms": shown(worst),
        "most requests/s": shown(busiest),
        "done again": shown(_sum(rows.get("retries", ()), "times")),
    }


def share(part: int, whole: int) -> str:
    """A part in percent; 100 % only if it is the whole, however little is missing."""
    if not whole:
        return NOTHING
    digits = next((n for n in range(1, MOST_DIGITS) if part == whole or round(part / whole, n + 2) < 1), None)
    return f"{part / whole:.{digits}%}" if digits is not None else f"under 100% ({whole - part} are missing)"


def left_out(rows: Iterable[dict[str, Any]]) -> list[str]:
    """A sentence for each thing that the figures leave out."""
    return [
        SENTENCES[row["what"]].format(
            times=shown(row["times"]),
            who=row["who"],
            between=f"from {moment(row['from_at'])} to {moment(row['to_at'])}",
        )
        for row in rows
    ]


def moment(value: Any) -> str:
    """A time to the second."""
    return "before" if value is None else str(value).replace("T", " ")[:19]


def _left_out(findings: Findings) -> str:
    lines = "".join(f"<li>{html.escape(line)}</li>" for line in left_out(findings.left_out))
    return f'<div class="warning">What these figures leave out:<ul>{lines}</ul></div>' if lines else ""


def _sum(rows: Iterable[dict[str, Any]], column: str) -> int:
    return sum(row[column] or 0 for row in rows)


def _figures(findings: Findings) -> str:
    figures = headline(findings.answers)
    items = "".join(
        f"<li><b>{html.escape(value)}</b>{html.escape(name)}</li>" for name, value in figures.items()
    )
    return f'<ul class="figures">{items}</ul>'


def _section(answered: Answered) -> str:
    section = answered.section
    title = f"<h2>{html.escape(section.title)}</h2>"
    if not answered.rows:
        return f'{title}\n<p class="empty">{html.escape(section.empty)}</p>'
    chart = _chart(section.chart, answered.rows) if section.chart else ""
    return "\n".join((title, chart, table(answered) if section.with_table else ""))


def _chart(name: str, rows: tuple[dict[str, Any], ...]) -> str:
    spec = specification(MESH_CHARTS[name].draw(rows))
    return f'<div class="wide">{html_chart(f"chart-{name}", spec)}</div>'


def _slowest(findings: Findings) -> str:
    if findings.slowest_id is None:
        return ""
    pieces = [piece.model_dump() for piece in findings.slowest]
    spec = specification(request_timeline(pieces, f"request {findings.slowest_id}"))
    chart = html_chart("chart-slowest", spec)
    return f'<h2>The way of the slowest</h2>\n<div class="wide">{chart}</div>'


def table(answered: Answered) -> str:
    """The rows of a section; numbers stand on the right."""
    numeric = {
        column
        for column in answered.columns
        if any(isinstance(row[column], (int, float)) for row in answered.rows)
    }
    head = "".join(_cell("th", heading(column), column in numeric) for column in answered.columns)
    body = "\n".join(
        f"<tr>{''.join(_cell('td', shown(row[c]), c in numeric) for c in answered.columns)}</tr>"
        for row in answered.rows
    )
    return f'<div class="wide"><table><thead><tr>{head}</tr></thead><tbody>\n{body}\n</tbody></table></div>'


def _cell(tag: str, text: str, is_number: bool) -> str:
    kind = ' class="n"' if is_number else ""
    return f"<{tag}{kind}>{html.escape(text)}</{tag}>"


def shown(value: Any) -> str:
    """A value for people: three figures, thousands apart."""
    if value is None:
        return NOTHING
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return str(value)
    if isinstance(value, int) or abs(value) >= 1000:
        return f"{value:,.0f}"
    return f"{value:.3g}"
