"""Shows the findings as a table for people."""

from __future__ import annotations

from rich.table import Table
from rich.text import Text

from services.cli.setup.validation.finding import Findings
from services.cli.views.tables.overview_tables import table

STYLES = {"ok": "green", "warning": "yellow", "wrong": "bold red"}


def report(findings: Findings) -> Table:
    """A line for each finding; the column of what to do only where there is something to do."""
    something = any(finding.to_do for finding in findings.findings)
    rows = table("", "check", "found", *(["what to do"] if something else []))
    for finding in findings.findings:
        state = Text(finding.state, STYLES[finding.state])
        rows.add_row(state, finding.what, finding.found, *([finding.to_do] if something else []))
    return rows
