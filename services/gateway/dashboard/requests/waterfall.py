"""Where the time of a request went, as bars: a line for each actor, on one axis. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from services.client.queries.trace.breakdown import shares, stretches
from services.client.queries.trace.pieces import COMPUTATION, Piece, Waterfall

KINDS = {
    **dict.fromkeys(("queue", "redelivery", "collect", "summarise"), "queue"),
    "slot": "slot",
    "load": "load",
    "prompt": "prompt",
    **dict.fromkeys(("generate", "stage"), "eval"),
    **dict.fromkeys(("admit", "agent", "decide"), "work"),
    **dict.fromkeys(("enqueue", "store"), "store"),
    **dict.fromkeys(("lost", "cancelled"), "lost"),
}
"""The colour of each kind of piece."""
LEGEND = (
    ("queue", "waiting"),
    ("slot", "waiting for a slot"),
    ("load", "loading"),
    ("prompt", "reading the prompt"),
    ("eval", "generating, or computing a stage"),
    ("work", "admitting, deciding"),
    ("store", "storing"),
    ("lost", "in vain"),
)
FAINT = frozenset({"collect", "summarise"})
"""Waiting for what other lines show."""


@dataclass(frozen=True)
class Bar:
    """A stretch of a line, in percent of the width of all."""

    kind: str
    words: str
    start: float
    width: float
    ms: float
    detail: str | None
    faint: bool


@dataclass(frozen=True)
class Line:
    """What one actor did: a task of a model in one round, a stage of a pipeline, a service."""

    name: str
    where: str
    bars: tuple[Bar, ...]
    busy_ms: float


@dataclass(frozen=True)
class Cost:
    """A part of the total; all of them together are the total. A gap lies between two pieces."""

    name: str
    who: str
    ms: float
    percent: float
    gap: bool


def lines(fall: Waterfall) -> tuple[Line, ...]:
    """A line for each actor, in the order in which they begin.

    Times of different hosts are by different clocks: hosts whose clocks differ are seen to differ.
    """
    by_actor: dict[str, list[Piece]] = {}
    for piece in fall.pieces:
        if not piece.is_moment:
            by_actor.setdefault(piece.actor, []).append(piece)
    # A moment has no length: whoever looks at the result an hour later is told to have had it then.
    drawn = [piece for pieces in by_actor.values() for piece in pieces]
    ends = [fall.ended_s, *(end for piece in drawn if (end := piece.ended_s) is not None)]
    begins = [fall.started_s, *(piece.started_s for piece in drawn)]
    first, span = min(begins), max(max(ends) - min(begins), 1e-6)
    return tuple(_line(actor, pieces, first, span, max(ends)) for actor, pieces in by_actor.items())


def costs(fall: Waterfall) -> tuple[Cost, ...]:
    """Every moment of the request once, by what it was spent on, the longest first."""
    total_s = max(fall.total_s, 1e-9)
    return tuple(
        Cost(share.name, share.who, share.seconds * 1000, 100 * share.seconds / total_s, share.is_gap)
        for share in shares(stretches(fall))
    )


def _line(actor: str, pieces: Sequence[Piece], first_s: float, span_s: float, last_s: float) -> Line:
    bars = []
    for piece in pieces:
        ended_s = last_s if piece.ended_s is None else piece.ended_s
        took_s = max(0.0, ended_s - piece.started_s)
        bars.append(
            Bar(
                KINDS.get(piece.what, "work"),
                piece.label,
                100 * (piece.started_s - first_s) / span_s,
                100 * took_s / span_s,
                took_s * 1000,
                piece.detail,
                piece.what in FAINT,
            )
        )
    doers = [piece for piece in pieces if piece.what in COMPUTATION] or pieces
    where = dict.fromkeys(f"{piece.host or '-'}: {piece.instance}" for piece in doers)
    # What is faint lies beneath.
    bars.sort(key=lambda bar: not bar.faint)
    busy_ms = sum(bar.ms for bar in bars if not bar.faint)
    return Line(actor, ", ".join(where), tuple(bars), busy_ms)
