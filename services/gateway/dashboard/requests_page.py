"""What was asked lately: searched, filtered, live."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Mapping

from starlette.requests import Request
from starlette.responses import Response

from schemas.errors import ChoirError
from schemas.queries import Scalar
from services.gateway.context import GatewayContext
from services.gateway.dashboard.live import changes, failed, heartbeat
from services.gateway.dashboard.pages import fragment, page
from services.gateway.dashboard.rows import Rows, rows_of
from services.gateway.streaming import SSE, StreamedReply

MOST = 100
LOOK_EVERY_S = 2.0
STATES = ("open", "answered", "failed")
STATEMENT = """
SELECT
    request_id, epoch(accepted_at) AS accepted_at_s, status, topology, models, strategies, total_ms,
    prompt_tokens, generated_tokens, error_code
FROM requests
WHERE ($state::VARCHAR = '' OR status = $state)
    AND ($model::VARCHAR = '' OR list_contains(models, $model))
    AND ($id::VARCHAR = '' OR contains(request_id, $id))
    AND accepted_at > now()::TIMESTAMP - to_seconds($within_s::DOUBLE)
ORDER BY accepted_at DESC, request_id DESC
LIMIT $count::BIGINT
"""
WITHIN: Mapping[str, float] = {"1 h": 3_600.0, "1 d": 86_400.0, "7 d": 604_800.0}


class RequestsPage:
    """Lists requests from the event database. Without it the page says so, and the rest of it stays."""

    def __init__(self, context: GatewayContext) -> None:
        self._context = context

    async def page(self, request: Request) -> Response:
        """The latest requests that pass the filter of the query."""
        wanted = _filter(request)
        live = str(request.url.replace(path="/dashboard/live/requests", scheme="", netloc=""))
        return page(
            "requests.html.j2",
            parts=await self._parts_of(wanted),
            wanted=wanted,
            states=STATES,
            spans=tuple(WITHIN),
            active="requests",
            live=live,
        )

    async def live(self, request: Request) -> StreamedReply:
        """The same list, whenever it has changed."""
        return StreamedReply(
            changes(self._parts(_filter(request))),
            self._context.settings,
            media_type=SSE,
            heartbeat=heartbeat,
            on_error=failed,
        )

    async def _parts(self, wanted: Mapping[str, str]) -> AsyncGenerator[dict[str, str], None]:
        while True:
            yield await self._parts_of(wanted)
            await asyncio.sleep(LOOK_EVERY_S)

    async def _parts_of(self, wanted: Mapping[str, str]) -> dict[str, str]:
        rows: Rows = ()
        problem = None
        try:
            rows = await self._rows(wanted)
        except ChoirError as error:
            problem = error.message
        return {"requests": fragment("requests_table.html.j2", rows=rows, problem=problem, most=MOST)}

    async def _rows(self, wanted: Mapping[str, str]) -> Rows:
        parameters: dict[str, Scalar] = {
            "state": wanted["state"],
            "model": wanted["model"],
            "id": wanted["id"],
            "within_s": WITHIN[wanted["within"]],
            "count": MOST,
        }
        rows = await self._context.mesh.sql(STATEMENT, parameters, max_rows=MOST)
        return rows_of(rows)


def _filter(request: Request) -> dict[str, str]:
    """What of the query is a filter; what is none is passed over."""
    said = request.query_params
    state, within = said.get("state", ""), said.get("within", "1 d")
    return {
        "state": state if state in STATES else "",
        "within": within if within in WITHIN else "1 d",
        "model": said.get("model", "")[:200],
        "id": said.get("id", "")[:200],
    }
