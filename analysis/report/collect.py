"""Asks a mesh for everything that a report shows."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from analysis.report.sections import LEFT_OUT, Section, sections
from analysis.report.span import TimeSpan
from schemas.requests.queries import Rows as Reply
from schemas.requests.queries import Scalar
from services.client.client import Choir
from services.client.missing_service import check_metrics
from services.client.queries.query_file import shipped
from services.client.queries.trace.document import PieceDocument, document
from services.client.queries.trace.look_up import look_up

QUERY_TIMEOUT_S = 30.0
SLOWEST_QUERY = "slowest_requests"


@dataclass(frozen=True)
class Answered:
    """A section and its rows."""

    section: Section
    columns: tuple[str, ...]
    rows: tuple[dict[str, Any], ...]


@dataclass(frozen=True)
class Findings:
    """All that a report shows: `left_out` is what its figures leave out, `slowest` the way of the slowest
    request, if there was any."""

    span: TimeSpan
    answers: tuple[Answered, ...]
    slowest_id: str | None = None
    slowest: tuple[PieceDocument, ...] = ()
    left_out: tuple[dict[str, Any], ...] = ()


async def collect(mesh: Choir, span: TimeSpan) -> Findings:
    """Raises MeshUnreachable if there is no metrics service, and what `Choir.sql` raises."""
    await check_metrics(mesh)
    answers = tuple([await _ask(mesh, section, span) for section in sections(span)])
    left_out = (await _ask(mesh, LEFT_OUT, span)).rows
    slowest = next((a.rows for a in answers if a.section.query == SLOWEST_QUERY), ())
    if not slowest:
        return Findings(span, answers, left_out=left_out)
    request_id = str(slowest[0]["request_id"])
    pieces = document(await look_up(mesh, request_id)).pieces
    return Findings(span, answers, request_id, pieces, left_out)


async def _ask(mesh: Choir, section: Section, span: TimeSpan) -> Answered:
    parameters: dict[str, Scalar] = {**span.parameters, **section.parameters}
    rows = await mesh.sql(shipped(section.query).statement, parameters, timeout_s=QUERY_TIMEOUT_S)
    return answered(section, rows)


def answered(section: Section, reply: Reply) -> Answered:
    """The rows of a reply by the names of their columns."""
    return Answered(section, tuple(reply.names), tuple(reply.by_name()))
