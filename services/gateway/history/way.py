"""The way of one request through the mesh, hop by hop, from the event database."""

from __future__ import annotations

from services.client.client import Choir
from services.client.queries.trace.pieces import QUERY, Waterfall, waterfall
from services.gateway.history.owning import NamedRequest
from services.gateway.history.told import told_way

PIECES = QUERY.read_text(encoding="utf-8")
"""The statement that the waterfall is made of, with the parameter `request_id`."""


async def way_of(mesh: Choir, request: NamedRequest) -> Waterfall | None:
    """What each service did for a request, and when, as the caller is told it; None as long as no event tells
    of it.

    Raises MeshUnreachable where there is no metrics service.
    """
    pieces = await mesh.sql(PIECES, {"request_id": request.row_id})
    return told_way(waterfall(request.id, pieces.names, pieces.rows))
