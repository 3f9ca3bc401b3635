"""A snapshot on a screen of a given size: the mesh in three lines, then the instances there is room for."""

from __future__ import annotations

import time
from collections.abc import Sequence

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from services.cli.overview_tables import NOTHING, STATE_STYLES, size, table
from services.cli.terminal import plain
from services.cli.top.snapshot import NodeRow, Rates, Snapshot

LINES_AROUND = 6
"""Heading, rates, slots, the table's head, and two more for what is missing and how to quit."""
METER_WIDTH = 20
WIDE = 100
"""From here on there is room for a host, a GPU and the distance to the broker."""
FIRST = ("agent", "shard_stage")


def screen(snapshot: Snapshot, width: int, height: int, quit_hint: str = "") -> Group:
    """The whole picture, at most `height` lines of at most `width`."""
    notes = [*snapshot.missing, *snapshot.problems]
    room = max(1, height - LINES_AROUND - min(len(notes), 3))
    head = [_heading(snapshot), _rates(snapshot.rates), _slots(snapshot)]
    for line in head:
        line.truncate(width, overflow="ellipsis")
    lines: list[RenderableType] = [*head]
    lines.append(_instances(snapshot.nodes, width, room))
    lines += [_note(note, "yellow", width) for note in notes[:3]]
    lines.append(_note(quit_hint, "dim", width))
    return Group(*lines)


def _heading(snapshot: Snapshot) -> Text:
    services = ", ".join(f"{count} {name}" for name, count in sorted(snapshot.services.items()))
    clock = time.strftime("%H:%M:%S", time.localtime(snapshot.at_s))
    return Text.assemble(("choir top ", "bold"), clock, "  ", snapshot.url, "  ", services)


def _rates(rates: Rates | None) -> Text:
    if rates is None:
        return Text("requests -   tokens -   p50 -   p95 -   errors -", "dim")
    errors = rates.failed + rates.refused
    return Text.assemble(
        ("requests ", "bold"), f"{rates.requests_per_s:.1f}/s   ",
        ("tokens ", "bold"), f"{rates.tokens_per_s:.1f}/s   ",
        ("p50 ", "bold"), f"{_ms(rates.p50_ms)}   ",
        ("p95 ", "bold"), f"{_ms(rates.p95_ms)}   ",
        ("errors ", "bold red" if errors else "bold"), f"{errors} ({rates.error_share:.1%})",
    )  # fmt: skip


def _slots(snapshot: Snapshot) -> Text:
    share = snapshot.busy / snapshot.slots if snapshot.slots else 0.0
    filled = min(METER_WIDTH, round(share * METER_WIDTH))
    return Text.assemble(
        ("slots ", "bold"), ("█" * filled, "green"), ("░" * (METER_WIDTH - filled), "dim"),
        f" {snapshot.busy}/{snapshot.slots}   ",
        ("queued ", "bold"), f"{snapshot.queued}   ",
        ("models ", "bold"), str(len(snapshot.models)),
        (f"   rates of the last {snapshot.rates.window_s:g} s" if snapshot.rates else "", "dim"),
    )  # fmt: skip


def _instances(nodes: Sequence[NodeRow], width: int, room: int) -> Table:
    wide = width >= WIDE
    more = ("host", "gpu", "rtt") if wide else ()
    rows = table(
        "instance", *more[:1], "state", "slots", "cpu", "memory", *more[1:], "tasks/s", "tokens/s",
        right=("slots", "cpu", "memory", "gpu", "rtt", "tasks/s", "tokens/s"),
    )  # fmt: skip
    for column in rows.columns:
        column.no_wrap, column.overflow = True, "ellipsis"
    ordered = sorted(nodes, key=lambda node: (node.service not in FIRST, node.service, node.instance))
    shown = ordered if len(ordered) <= room else ordered[: room - 1]
    for node in shown:
        rows.add_row(*_cells(node, wide))
    if len(shown) < len(ordered):
        rows.add_row(Text(f"and {len(ordered) - len(shown)} more", "dim"))
    return rows


def _cells(node: NodeRow, wide: bool) -> list[str | Text]:
    cells: list[str | Text] = [plain(node.instance)]
    if wide:
        cells.append(plain(node.host))
    cells += [
        Text(node.state, STATE_STYLES[node.state]),
        f"{node.busy}/{node.slots}" if node.slots else NOTHING,
        f"{node.cpu_percent:.0f} %",
        size(node.memory_used_bytes),
    ]
    if wide:
        cells += [
            NOTHING if node.gpu_percent is None else f"{node.gpu_percent:.0f} %",
            _ms(node.broker_rtt_ms),
        ]
    return [*cells, _per_s(node.tasks_per_s), _per_s(node.tokens_per_s)]


def _note(text: str, style: str, width: int) -> Text:
    note = Text(plain(" ".join(text.split())), style)
    note.truncate(width, overflow="ellipsis")
    return note


def _ms(value: float | None) -> str:
    if value is None:
        return NOTHING
    return f"{value:.1f} ms" if value < 100 else f"{value:,.0f} ms"


def _per_s(value: float | None) -> str:
    return NOTHING if value is None else f"{value:.1f}"
