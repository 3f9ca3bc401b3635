"""The pieces of a request's way, as `services/client/queries/requests/waterfall.sql` gives them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from services.client.queries.query_file import SHIPPED

QUERY = SHIPPED["waterfall"]

LABELS = {
    "admit": "admission: check, plan, store",
    "enqueue": "storing the command",
    "queue": "waiting in the queue",
    "redelivery": "waiting for another delivery",
    "slot": "waiting for a slot",
    "load": "loading the model",
    "prompt": "reading the prompt",
    "generate": "generating",
    "agent": "in the agent",
    "store": "storing the outcome",
    "collect": "waiting for answers",
    "decide": "deciding",
    "summarise": "waiting for its own tasks",
    "stage": "computing, all steps together",
    "lost": "attempt without an outcome",
    "cancelled": "cancelled while in work",
}
"""What each kind of piece is called; a kind that is not here is a moment."""

COMPUTATION = frozenset({"load", "prompt", "generate", "agent", "decide", "stage", "admit"})
"""Somebody computes; everything else is waiting, storing or transport."""

MOMENTS = {
    "completed": "the result is stored",
    "replied": "the client has its reply",
    "refused": "refused at admission",
    "retried": "went back to the queue",
    "died": "given up: lies in DEAD",
}


FIELDS = (
    *("what", "service", "instance", "host", "task_id", "model", "round", "delivery"),
    *("started_s", "ended_s", "detail"),
)
"""The columns of the query that make a piece; the others are for people."""

LAST_WORDS = {
    "replied": "answered",
    "completed": "completed, not fetched",
    "refused": "refused",
    "died": "died",
}


@dataclass(frozen=True)
class Piece:
    """A stretch of time, or a moment, of one service's work for the request; seconds since the epoch."""

    what: str
    service: str
    instance: str
    host: str | None
    task_id: str | None
    model: str | None
    round: int
    delivery: int
    started_s: float
    ended_s: float | None
    detail: str | None = None

    @property
    def is_moment(self) -> bool:
        """Whether it has no length."""
        return self.what in MOMENTS

    @property
    def label(self) -> str:
        """What it is called."""
        return LABELS.get(self.what) or MOMENTS.get(self.what, self.what)

    @property
    def actor(self) -> str:
        """Whose line it is on: a model for a task (with its round and delivery), else a service."""
        if self.model is None:
            return self.service
        again = f" #{self.delivery}" if self.delivery > 1 else ""
        return f"{self.model}{f' r{self.round}' if self.round > 1 else ''}{again}"


@dataclass(frozen=True)
class Waterfall:
    """All pieces of one request, oldest first, between its arrival and the last thing known of it."""

    request_id: str
    pieces: tuple[Piece, ...]
    started_s: float
    ended_s: float

    @property
    def total_s(self) -> float:
        """How long it took."""
        return self.ended_s - self.started_s

    @property
    def hosts(self) -> tuple[str, ...]:
        """Whose clocks the times are of."""
        return tuple(sorted({piece.host for piece in self.pieces if piece.host}))

    @property
    def is_over(self) -> bool:
        """Whether the client has its reply, or will get none."""
        return any(piece.what in ("replied", "refused") for piece in self.pieces)

    @property
    def outcome(self) -> str:
        """How it stands with the request."""
        moments = {piece.what: piece for piece in self.pieces if piece.is_moment}
        for what in ("refused", "died", "replied", "completed"):
            if what in moments:
                error = moments[what].detail
                return f"failed: {error}" if error else LAST_WORDS[what]
        return "not completed"


def waterfall(request_id: str, columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> Waterfall | None:
    """The waterfall from the rows of the query; None if there are none. Pieces of no length are left out."""
    named = (_piece(dict(zip(columns, row, strict=True))) for row in rows)
    pieces = tuple(piece for piece in named if piece.is_moment or piece.ended_s != piece.started_s)
    if not pieces:
        return None
    arrivals = [piece.started_s for piece in pieces if piece.what == "admit"]
    started_s = min(arrivals or [piece.started_s for piece in pieces])
    ended_s = max(_end(piece) for piece in pieces)
    ended_s = max(started_s, _first_reply(pieces) or ended_s)
    return Waterfall(request_id, pieces, started_s, ended_s)


def _piece(row: dict[str, Any]) -> Piece:
    """Sums of floating durations differ in what no clock can tell: times are whole microseconds."""
    ended_s = row["ended_s"]
    row["started_s"] = round(row["started_s"], 6)
    row["ended_s"] = None if ended_s is None else round(ended_s, 6)
    return Piece(**{name: row[name] for name in FIELDS})


def _end(piece: Piece) -> float:
    return piece.started_s if piece.ended_s is None else piece.ended_s


def _first_reply(pieces: Iterable[Piece]) -> float | None:
    """The first reply ends the request: what is fetched again later is no part of it."""
    return min((piece.started_s for piece in pieces if piece.what == "replied"), default=None)
