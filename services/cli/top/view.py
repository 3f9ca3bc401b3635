"""A snapshot on a screen of a given size: the mesh in three lines, then the instances there is room for."""

from __future__ import annotations

import time
from collections.abc import Sequence

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from services.cli.top.panes import PANES, Look, fitting, ms, of
from services.cli.top.snapshot import Rates, Snapshot
from services.cli.views.tables.overview_tables import table
from services.cli.views.terminal import counted_services, plain

LINES_AROUND = 7
"""Heading, rates, slots, panes, the table's head, and two more for what is missing and how to quit."""
METER_WIDTH = 20
BARS = "▁▂▃▄▅▆▇█"
LEAST_BARS = 8
"""For fewer there is no place: they show nothing."""
WIDE = 100
"""From here on there is room for a host, a GPU and the distance to the broker."""


FIRST_LOOK = Look()


def screen(
    snapshot: Snapshot,
    width: int,
    height: int,
    hint: str = "",
    look: Look = FIRST_LOOK,
    trail: Sequence[float] = (),
) -> Group:
    """The whole picture, at most `height` lines of at most `width`, with one pane. `trail`: requests/s as
    they were at the latest looks."""
    notes = [*snapshot.missing, *snapshot.problems]
    room = max(1, height - LINES_AROUND - min(len(notes), 3))
    head = [_heading(snapshot), _rates(snapshot.rates), _slots(snapshot), _tabs(snapshot, look, trail, width)]
    for line in head:
        line.truncate(width, overflow="ellipsis")
    lines: list[RenderableType] = [*head]
    lines.append(_pane(snapshot, look, width, room))
    lines += [_note(note, "yellow", width) for note in notes[:3]]
    lines.append(_note(hint, "dim", width))
    return Group(*lines)


def all_panes(snapshot: Snapshot, width: int) -> Group:
    """Everything, one pane under the other, for a look that does not last."""
    height = len(snapshot.nodes) + LINES_AROUND + len(snapshot.missing) + len(snapshot.problems) + 4
    lines: list[RenderableType] = [screen(snapshot, width, height)]
    for number, pane in enumerate(PANES[1:], start=1):
        if count := len(pane.rows(snapshot)):
            lines += [_pane(snapshot, Look(number), width, count), Text()]
    return Group(*lines)


def _heading(snapshot: Snapshot) -> Text:
    services = counted_services(snapshot.services)
    clock = time.strftime("%H:%M:%S", time.localtime(snapshot.at_s))
    return Text.assemble(("choir top ", "bold"), clock, "  ", snapshot.url, "  ", services)


def _rates(rates: Rates | None) -> Text:
    if rates is None:
        return Text("requests -   tokens -   p50 -   p95 -   errors -", "dim")
    errors = rates.failed + rates.refused
    return Text.assemble(
        ("requests ", "bold"), f"{rates.requests_per_s:.1f}/s   ",
        ("tokens ", "bold"), f"{rates.tokens_per_s:.1f}/s   ",
        ("p50 ", "bold"), f"{ms(rates.p50_ms)}   ",
        ("p95 ", "bold"), f"{ms(rates.p95_ms)}   ",
        ("errors ", "bold red" if errors else "bold"), f"{errors} ({rates.error_share:.1%})",
    )  # fmt: skip


def _slots(snapshot: Snapshot) -> Text:
    share = snapshot.busy / snapshot.slots if snapshot.slots else 0.0
    filled = min(METER_WIDTH, round(share * METER_WIDTH))
    return Text.assemble(
        ("slots ", "bold"), ("█" * filled, "green"), ("░" * (METER_WIDTH - filled), "dim"),
        f" {of(snapshot.busy, snapshot.slots)}   ",
        ("queued ", "bold"), f"{snapshot.queued}   ",
        ("models ", "bold"), str(len(snapshot.models)),
        (f"   rates of the last {snapshot.rates.window_s:g} s" if snapshot.rates else "", "dim"),
    )  # fmt: skip


def _tabs(snapshot: Snapshot, look: Look, trail: Sequence[float], width: int) -> Text:
    """All panes with how much is in each; the one that is shown stands out. Beside them how the rate of
    requests has gone, for as many looks as there is room for."""
    tabs = Text()
    for number, pane in enumerate(PANES):
        style = "reverse bold" if number == look.pane else "dim"
        tabs.append(f" {pane.name} {pane.count(snapshot)} ", style)
    label = "   requests/s "
    room = width - tabs.cell_len - len(label)
    if trail and room >= LEAST_BARS:
        tabs.append(label, "dim").append(sparkline(trail[-room:]), "green")
    return tabs


def sparkline(values: Sequence[float]) -> str:
    """A bar for each value, the highest as high as a line; nothing at all has the lowest."""
    top = max(values, default=0.0)
    return "".join(BARS[round(value / top * (len(BARS) - 1)) if top > 0 else 0] for value in values)


def _pane(snapshot: Snapshot, look: Look, width: int, room: int) -> Table:
    """The pane's rows for which there is room."""
    pane = PANES[look.pane]
    columns = fitting(pane.columns, wide=width >= WIDE)
    rows = table(*(column.name for column in columns), right=[c.name for c in columns if c.right])
    for column in rows.columns:
        column.no_wrap, column.overflow = True, "ellipsis"
    ordered = look.rows(snapshot)
    shown = ordered if len(ordered) <= room else ordered[: room - 1]
    for row in shown:
        rows.add_row(*(column.cell(row) for column in columns))
    if not ordered:
        rows.add_row(Text("none", "dim"))
    if len(shown) < len(ordered):
        rows.add_row(Text(f"and {len(ordered) - len(shown)} more", "dim"))
    return rows


def _note(text: str, style: str, width: int) -> Text:
    note = Text(plain(text).replace("\n", " "), style)
    note.truncate(width, overflow="ellipsis")
    return note
