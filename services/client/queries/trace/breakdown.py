"""Breaks down the time of a request: every moment of it is counted once, and what is left has a name. Pure.

Where several things happen at once (an ensemble), those count that the request had to wait for: the task that
ended last of its round. Of one task's pieces the innermost counts. What no piece covers is a gap, named after
its neighbours.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import pairwise

from services.client.queries.trace.pieces import COMPUTATION, LABELS, Piece, Waterfall

INNERMOST = (
    *("decide", "prompt", "generate", "load", "slot", "agent", "stage", "store", "redelivery", "queue"),
    *("enqueue", "admit", "cancelled", "lost", "collect", "summarise"),
)
"""Which of two pieces that cover the same moment says more about it."""

GAPS = {
    ("admit", "queue"): "to the queue",
    ("queue", "enqueue"): "taking up",
    ("enqueue", "queue"): "to the agents' queue",
    ("store", "decide"): "answer on its way",
    ("store", "summarise"): "answer on its way",
    ("store", "reply"): "result on its way",
    ("store", "enqueue"): "between two steps",
    ("collect", "reply"): "result on its way",
    ("summarise", "reply"): "result on its way",
}
ELSE = "network, broker"


@dataclass(frozen=True)
class Stretch:
    """A part of the request's time, one kind of thing throughout; `who` is the actor, empty for a gap.

    `across_clocks` says that it lies between events of different hosts.
    """

    name: str
    who: str
    started_s: float
    ended_s: float
    is_gap: bool = False
    is_computation: bool = False
    across_clocks: bool = False

    @property
    def seconds(self) -> float:
        """How long it is."""
        return self.ended_s - self.started_s


@dataclass(frozen=True)
class Share:
    """All stretches of one name and actor together."""

    name: str
    who: str
    seconds: float
    is_gap: bool
    is_computation: bool
    across_clocks: bool


def stretches(fall: Waterfall) -> tuple[Stretch, ...]:
    """The request's time from beginning to end without overlap; the lengths sum up to `total_s`."""
    needed = critical(fall.pieces)
    pieces = [piece for piece in fall.pieces if not piece.is_moment]
    edges = {fall.started_s, fall.ended_s}
    for piece in pieces:
        edges |= {_within(piece.started_s, fall), _within(_ended(piece, fall), fall)}
    found: list[tuple[Piece | None, float, float]] = []
    for start, end in pairwise(sorted(edges)):
        covering = [p for p in pieces if p.started_s <= start and _ended(p, fall) >= end]
        best = min(covering, key=lambda p: (p not in needed, _rank(p)), default=None)
        if found and found[-1][0] is best:
            found[-1] = (best, found[-1][1], end)
        else:
            found.append((best, start, end))
    return tuple(_stretch(fall, found, index) for index in range(len(found)))


def shares(parts: Iterable[Stretch]) -> tuple[Share, ...]:
    """The same summed up by name and actor, the longest first."""
    sums: dict[tuple[str, str], list[Stretch]] = {}
    for part in parts:
        sums.setdefault((part.name, part.who), []).append(part)
    summed = [
        Share(
            name,
            who,
            sum(part.seconds for part in same),
            same[0].is_gap,
            same[0].is_computation,
            any(part.across_clocks for part in same),
        )
        for (name, who), same in sums.items()
    ]
    return tuple(sorted(summed, key=lambda share: -share.seconds))


def critical(pieces: Iterable[Piece]) -> frozenset[Piece]:
    """What the request had to wait for: of each round's tasks the last to end, and what is no task's."""
    ends: dict[int, tuple[float, str]] = {}
    pieces = tuple(pieces)
    for piece in pieces:
        if piece.task_id is not None and piece.what == "store" and piece.ended_s is not None:
            ends[piece.round] = max(ends.get(piece.round, (0.0, "")), (piece.ended_s, piece.task_id))
    last = {task_id for _, task_id in ends.values()}
    return frozenset(piece for piece in pieces if piece.task_id is None or piece.task_id in last)


def _rank(piece: Piece) -> int:
    return INNERMOST.index(piece.what) if piece.what in INNERMOST else len(INNERMOST)


def _ended(piece: Piece, fall: Waterfall) -> float:
    return fall.ended_s if piece.ended_s is None else piece.ended_s


def _within(moment_s: float, fall: Waterfall) -> float:
    return min(max(moment_s, fall.started_s), fall.ended_s)


def _stretch(fall: Waterfall, found: list[tuple[Piece | None, float, float]], index: int) -> Stretch:
    piece, start, end = found[index]
    if piece is not None:
        name = LABELS.get(piece.what, piece.what)
        return Stretch(name, piece.actor, start, end, is_computation=piece.what in COMPUTATION)
    before = found[index - 1][0] if index else None
    after = found[index + 1][0] if index + 1 < len(found) else None
    kinds = (before.what if before else "ask", after.what if after else "reply")
    hosts = {neighbour.host for neighbour in (before, after or _end(fall)) if neighbour is not None}
    return Stretch(GAPS.get(kinds, ELSE), "", start, end, is_gap=True, across_clocks=len(hosts) > 1)


def _end(fall: Waterfall) -> Piece | None:
    """The moment with which the request ends."""
    return next((p for p in fall.pieces if p.is_moment and p.started_s == fall.ended_s), None)
