"""The waterfall as one JSON document."""

from __future__ import annotations

from schemas.message import Struct
from services.client.queries.trace.breakdown import shares, stretches
from services.client.queries.trace.pieces import Waterfall


class PieceDocument(Struct):
    """A piece of the way, in milliseconds since the request came to the router; it may never have ended."""

    what: str
    label: str
    service: str
    instance: str
    host: str | None = None
    task_id: str | None = None
    model: str | None = None
    round: int
    delivery: int
    started_ms: float
    ended_ms: float | None = None
    detail: str | None = None


class ShareDocument(Struct):
    """A part of the total; all of them together are the total. A gap lies between two pieces."""

    name: str
    who: str
    ms: float
    is_gap: bool
    across_clocks: bool


class TraceDocument(Struct):
    """What `choir trace --json` prints."""

    request_id: str
    outcome: str
    total_ms: float
    hosts: tuple[str, ...]
    pieces: tuple[PieceDocument, ...]
    breakdown: tuple[ShareDocument, ...]


def document(fall: Waterfall) -> TraceDocument:
    """Everything that the view shows, and the moments."""

    def ms(moment_s: float) -> float:
        return round((moment_s - fall.started_s) * 1000, 3)

    return TraceDocument(
        request_id=fall.request_id,
        outcome=fall.outcome,
        total_ms=round(fall.total_s * 1000, 3),
        hosts=fall.hosts,
        pieces=tuple(
            PieceDocument(
                what=piece.what,
                label=piece.label,
                service=piece.service,
                instance=piece.instance,
                host=piece.host,
                task_id=piece.task_id,
                model=piece.model,
                round=piece.round,
                delivery=piece.delivery,
                started_ms=ms(piece.started_s),
                ended_ms=None if piece.ended_s is None else ms(piece.ended_s),
                detail=piece.detail,
            )
            for piece in fall.pieces
        ),
        breakdown=tuple(
            ShareDocument(
                name=share.name,
                who=share.who,
                ms=round(share.seconds * 1000, 6),
                is_gap=share.is_gap,
                across_clocks=share.across_clocks,
            )
            for share in shares(stretches(fall))
        ),
    )
