"""The waterfall in a terminal: a bar for every piece, the gaps between them, and where the time went."""

from __future__ import annotations

from collections.abc import Iterable

from rich.console import Group
from rich.table import Table
from rich.text import Text

from services.cli.views.tables.overview_tables import table
from services.cli.views.terminal import plain
from services.client.queries.trace.breakdown import Share, Stretch, shares, stretches
from services.client.queries.trace.pieces import COMPUTATION, Piece, Waterfall

MOST_ACTOR, MOST_LABEL, TIME_WIDTH = 24, 31, 8
PADDING = 6
LEAST_BAR = 10
SMALL_GAP = 0.01
"""A gap shorter than this part of the whole has no line of its own; it counts in the sums all the same."""

COMPUTES, WAITS, STORES, FAILS, NOTHING = "█", "░", "▒", "x", "·"
STORING = frozenset({"store", "enqueue"})
FAILING = frozenset({"lost", "cancelled"})
STYLES = {COMPUTES: "green", WAITS: "yellow", STORES: "blue", FAILS: "red", NOTHING: "dim"}
LEGEND = ((COMPUTES, "computes"), (WAITS, "waits"), (STORES, "stores"), (NOTHING, "gap"), (FAILS, "in vain"))


def view(fall: Waterfall, width: int) -> Group:
    """Heading, bars and sums, for a terminal of `width` columns."""
    parts = stretches(fall)
    return Group(_heading(fall), _bars(fall, parts, width), _legend(), Text(), _sums(shares(parts), fall))


def milliseconds(seconds: float) -> str:
    """A duration, for people: `0.42 ms`, `14 ms`, `3.25 s`."""
    if seconds >= 1:
        return f"{seconds:.2f} s"
    ms = seconds * 1000
    return f"{ms:.0f} ms" if ms >= 100 else f"{ms:.1f} ms" if ms >= 9.995 else f"{ms:.2f} ms"


def _heading(fall: Waterfall) -> Text:
    head = Text.assemble((fall.request_id, "bold"), f"  {milliseconds(fall.total_s)}, {plain(fall.outcome)}")
    if len(fall.hosts) > 1:
        head.append(f"\ntimes are of the clocks of {', '.join(fall.hosts)}", "yellow")
    return head


def _bars(fall: Waterfall, parts: Iterable[Stretch], width: int) -> Table:
    lines = sorted((*_piece_lines(fall), *_gap_lines(fall, parts)), key=lambda line: line.started_s)
    actor_width = min(MOST_ACTOR, max((len(line.actor) for line in lines), default=0))
    label_width = min(MOST_LABEL, max((len(line.label) for line in lines), default=0))
    bar_width = max(LEAST_BAR, width - actor_width - label_width - TIME_WIDTH - PADDING)
    rows = Table(box=None, pad_edge=False, show_header=False, padding=(0, 2, 0, 0))
    rows.add_column(width=actor_width, no_wrap=True, overflow="ellipsis")
    rows.add_column(width=label_width, no_wrap=True, overflow="ellipsis")
    rows.add_column(width=bar_width, no_wrap=True)
    rows.add_column(width=TIME_WIDTH, justify="right", no_wrap=True)
    for line in lines:
        style = STYLES[line.glyph]
        bar = Text(_bar(line.started_s, line.ended_s, fall, bar_width, line.glyph), style)
        took = milliseconds(line.ended_s - line.started_s)
        rows.add_row(Text(plain(line.actor), "bold"), Text(plain(line.label)), bar, took)
    return rows


class _Line:
    """One line of the picture."""

    def __init__(self, actor: str, label: str, started_s: float, ended_s: float, glyph: str) -> None:
        self.actor, self.label, self.glyph = actor, label, glyph
        self.started_s, self.ended_s = started_s, max(started_s, ended_s)


def _piece_lines(fall: Waterfall) -> list[_Line]:
    return [
        _Line(
            piece.actor,
            piece.label,
            max(fall.started_s, piece.started_s),
            fall.ended_s if piece.ended_s is None else min(piece.ended_s, fall.ended_s),
            _glyph(piece),
        )
        for piece in fall.pieces
        if not piece.is_moment and piece.started_s < fall.ended_s
    ]


def _gap_lines(fall: Waterfall, parts: Iterable[Stretch]) -> list[_Line]:
    return [
        _Line("", f"({_gap_name(part)})", part.started_s, part.ended_s, NOTHING)
        for part in parts
        if part.is_gap and part.seconds >= SMALL_GAP * fall.total_s
    ]


def _gap_name(part: Stretch) -> str:
    return f"{part.name}, two clocks" if part.across_clocks else part.name


def _glyph(piece: Piece) -> str:
    if piece.what in FAILING:
        return FAILS
    if piece.what in STORING:
        return STORES
    return COMPUTES if piece.what in COMPUTATION else WAITS


def _bar(started_s: float, ended_s: float, fall: Waterfall, width: int, glyph: str) -> str:
    """At least one cell, at its place."""
    scale = width / fall.total_s if fall.total_s > 0 else 0.0
    first = min(width - 1, int((started_s - fall.started_s) * scale))
    last = min(width, max(first + 1, round((ended_s - fall.started_s) * scale)))
    return " " * first + glyph * (last - first)


def _legend() -> Text:
    legend = Text()
    for glyph, meaning in LEGEND:
        legend.append(glyph, STYLES[glyph]).append(f" {meaning}   ", "dim")
    return legend


def _sums(summed: Iterable[Share], fall: Waterfall) -> Table:
    rows = table("where the time went", "", "time", "share", right=("time", "share"))
    for share in summed:
        part = share.seconds / fall.total_s if fall.total_s > 0 else 0.0
        name = f"({share.name})" if share.is_gap else share.name
        clocks = " *" if share.across_clocks else ""
        rows.add_row(name + clocks, plain(share.who), milliseconds(share.seconds), f"{part:.1%}")
    rows.add_row(Text("in all", "bold"), "", Text(milliseconds(fall.total_s), "bold"), "100.0%")
    if any(share.across_clocks for share in summed):
        rows.add_row(Text("* between the clocks of two hosts", "dim"))
    return rows
