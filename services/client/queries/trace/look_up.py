"""Finds the waterfall of a request in the event database of a mesh."""

from __future__ import annotations

import asyncio
import time

from schemas.errors import UnknownRequest
from services.client.client import Choir
from services.client.missing_service import check_metrics
from services.client.queries.trace.pieces import QUERY, Waterfall, waterfall

PATIENCE_S = 3.0
"""Events are visible within a second, on a busy host a little later: a request that was answered just now is
waited for."""
PAUSE_S = 0.25
QUERY_TIMEOUT_S = 10.0


async def look_up(mesh: Choir, request_id: str) -> Waterfall:
    """The waterfall; waits a moment for one that is not complete yet.

    Raises UnknownRequest if no event tells of the request, MeshUnreachable if there is no metrics service.
    """
    await check_metrics(mesh)
    statement, end_s = QUERY.read_text(encoding="utf-8"), time.monotonic() + PATIENCE_S
    while True:
        rows = await mesh.sql(statement, {"request_id": request_id}, timeout_s=QUERY_TIMEOUT_S)
        found = waterfall(request_id, rows.names, rows.rows)
        if (found is not None and found.is_over) or time.monotonic() > end_s:
            break
        await asyncio.sleep(PAUSE_S)
    if found is None:
        raise UnknownRequest(
            f"request_id: no event tells of a request {request_id!r}: it was never asked here, or its events "
            "are no longer kept",
            field="request_id",
        )
    return found
