"""What was asked lately: searched, filtered, live; and its latency, throughput and errors over time."""

from __future__ import annotations

from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from schemas.ensembles.strategies import STRATEGIES
from schemas.errors import ChoirError
from services.client.client import Choir
from services.gateway.dashboard.shell.frame import Frame
from services.gateway.dashboard.shell.pages import fragment
from services.gateway.history.filter import CONDITION, REFUSED, STATES, WITHIN, Filter
from services.gateway.history.latest import STATEMENT, latest
from services.gateway.http.streaming import StreamedReply

MOST = 100
LOOK_EVERY_S = 2.0
CODES = f"""
SELECT code, what, count(*) AS requests, epoch(max(moment)) AS last_s, any_value(message) AS example
FROM (
    SELECT error_code AS code, 'failed' AS what, accepted_at AS moment, error_message AS message
    FROM requests WHERE error_code IS NOT NULL AND {CONDITION}
    UNION ALL
    SELECT error_code, 'refused', "at", error_message FROM request_refused WHERE {REFUSED}
)
GROUP BY code, what ORDER BY requests DESC, code LIMIT 20
"""
CHARTS = ("activity", "latency_by_model", "time_to_first_token", "error_budget")
"""What is drawn of the time that is shown, by the names of `analysis/charts/mesh.py`."""


class RequestsPage:
    """Lists requests from the event database. Without it the page says so, and the rest of it stays."""

    def __init__(self, frame: Frame) -> None:
        self._frame = frame

    async def page(self, request: Request) -> Response:
        """The latest requests that pass the filter of the query."""
        wanted = Filter.of(request.query_params)
        return self._frame.page(
            "requests/page.html.j2",
            "requests",
            f"/dashboard/live/requests?{wanted.query}",
            parts=await self._parts(wanted),
            wanted=wanted,
            states=STATES,
            strategies=STRATEGIES,
            spans=tuple(WITHIN),
            charts=CHARTS,
            sql=STATEMENT.strip(),
        )

    async def live(self, request: Request) -> StreamedReply:
        """The same list, whenever it has changed."""
        wanted = Filter.of(request.query_params)
        mesh = self._frame.context.mesh

        async def look() -> dict[str, str]:
            return await self._parts(wanted, mesh)

        return self._frame.live(("requests", wanted), look, LOOK_EVERY_S)

    async def _parts(self, wanted: Filter, mesh: Choir | None = None) -> dict[str, str]:
        rows: list[dict[str, Any]] = []
        codes: list[dict[str, Any]] = []
        problem = None
        mesh = mesh or self._frame.context.mesh
        try:
            rows = await latest(mesh, wanted.parameters, MOST)
            codes = (await mesh.sql(CODES, wanted.parameters)).by_name()
        except ChoirError as error:
            problem = error.message
        return {
            "requests": fragment("requests/table.html.j2", rows=rows, problem=problem, most=MOST),
            "errors": fragment("requests/errors.html.j2", codes=codes),
        }
