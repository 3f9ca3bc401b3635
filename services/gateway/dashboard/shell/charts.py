"""The charts of a page: specifications of `analysis`, and the script that draws them."""

from __future__ import annotations

import hashlib
from datetime import UTC, datetime, timedelta

from pydantic_core import to_json
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from schemas.errors import ChoirError
from schemas.requests.queries import Scalar
from services.client.queries.query_file import shipped
from services.gateway.dashboard.shell.drawing import Drawing
from services.gateway.dashboard.shell.frame import Frame
from services.gateway.dashboard.shell.pages import SECURITY
from services.gateway.history.filter import Filter

QUERY_OF = {
    "activity": "activity",
    "latency_by_model": "latency_by_model",
    "time_to_first_token": "time_to_first_token",
    "error_budget": "error_budget",
}
"""The query whose rows each chart of the requests is drawn from, as `analysis/charts/mesh.py` has it."""
OBJECTIVE = 0.99
NOTHING = "nothing of this happened"


class Charts:
    """Draws what the event database knows."""

    def __init__(self, frame: Frame, drawing: Drawing) -> None:
        self._frame = frame
        self._drawing = drawing

    async def chart(self, request: Request) -> Response:
        """The specification of a chart, for the time that the query says; words where there is none."""
        name, wanted = request.path_params["name"], Filter.of(request.query_params)
        if name not in QUERY_OF:
            raise HTTPException(404)
        query = shipped(QUERY_OF[name])
        since = datetime.now(UTC).replace(tzinfo=None) - timedelta(seconds=wanted.within_s)
        every: dict[str, Scalar] = {
            "since": since.isoformat(),
            "until": "9999-12-31",
            "step_s": wanted.step_s,
            "objective": OBJECTIVE,
        }
        taken = {parameter.name for parameter in query.parameters}
        parameters = {key: value for key, value in every.items() if key in taken}
        try:
            rows = (await self._frame.context.mesh.sql(query.statement, parameters)).by_name()
            if not rows:
                return self._said({"words": NOTHING})
            spec = await self._drawing.chart(name, rows)
        except ChoirError as error:
            return self._said({"words": error.message})
        return self._said({"words": query.question, "spec": spec})

    async def bundle(self, request: Request) -> Response:
        """Vega, for browsers that do not have it yet."""
        script = await self._drawing.bundle()
        tag = f'"{hashlib.sha256(script).hexdigest()[:32]}"'
        headers = {**SECURITY, "cache-control": "no-cache", "etag": tag}
        if request.headers.get("if-none-match") == tag:
            return Response(status_code=304, headers=headers)
        return Response(script, 200, headers, "text/javascript; charset=utf-8")

    def _said(self, fields: dict[str, object]) -> Response:
        return Response(to_json(fields), 200, SECURITY, "application/json")
