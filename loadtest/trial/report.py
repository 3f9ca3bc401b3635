"""What a trial leaves: one JSON document, and a table for people."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.table import Table

COUNTS = {
    "lost": "taken, and without a result",
    "doubled": "more than one result",
    "different": "two different replies to one client",
    "left_over": "commands that nobody works on",
    "missing": "results without an event",
    "not_in_dead": "unreadable, and not in DEAD",
    "half_registered": "of what runs, and of what the mesh knows, not in the other",
}
"""What a whole run has none of, and what that means."""
SHOWN = 5


def of_verdict(figures: Mapping[str, Any]) -> Table:
    """The counts of a verdict, and a few of those that it names."""
    table = Table("found", "count", "which", title="what the streams say", title_justify="left")
    for name, meaning in COUNTS.items():
        found = figures[name]
        table.add_row(meaning, str(len(found)), ", ".join(found[:SHOWN]))
    table.add_row("requests sent", f"{figures['sent']:,}", "")
    table.add_row("answered", f"{figures['answered']:,}", "")
    table.add_row("failed, with a stored result that says why", _of_codes(figures["failed"]), "")
    table.add_row("turned away at the door", _of_codes(figures["refused"]), "")
    table.add_row("dead letters", str(figures["dead"]), "")
    table.add_row("longest wait", f"{figures['longest_wait_s']:.1f} s", "")
    return table


def _of_codes(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{count:,} {code}" for code, count in sorted(counts.items())) or "0"
