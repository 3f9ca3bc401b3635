"""What was asked, and how it went: requests, the way of each through the mesh, figures over time.

All of it but results is in the event database. Where no metrics service runs, the error says so.
"""

from __future__ import annotations

import asyncio
import time
from datetime import UTC, datetime
from typing import Annotated, Any, Literal

from pydantic import Field, StringConstraints
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from schemas import subjects
from schemas.errors import ChoirError
from schemas.requests.queries import Scalar
from services.client.missing_service import check_metrics
from services.client.queries.query_file import shipped
from services.client.queries.trace.document import document
from services.gateway.distributed.replies import error_body, json_reply
from services.gateway.history.filter import Filter
from services.gateway.history.found_results import result_under
from services.gateway.history.latest import latest
from services.gateway.history.owning import NamedRequest, named, sees_all
from services.gateway.history.way import way_of
from services.gateway.http.body import Query, asked, asks
from services.gateway.http.context import GatewayContext
from services.gateway.http.errors import headers_of, status_of

MOST = 1_000
USUAL = 100
EVER_S = 1e9
HOUR_S = 3_600.0
LONGEST_S = 366 * 86_400.0
FIGURES = (
    *("request_latency", "latency_by_model", "time_to_first_token", "tokens_per_second_by_node"),
    *("strategies", "savings", "retries", "error_budget"),
)
"""The queries that come with Choir whose rows are told, besides the sums of `recent_rates`."""

Said = Annotated[str, StringConstraints(max_length=200)]


class RequestsQuery(Query):
    """Which requests: at most `limit` of those that pass all that is said, the newest first. `within_s` is
    how many seconds ago they came at most, `id` a part of their ids."""

    limit: Annotated[int, Field(ge=1, le=MOST)] = USUAL
    state: Literal["open", "answered", "failed"] | None = None
    model: Said | None = None
    strategy: Said | None = None
    tenant: Said | None = None
    id: Said | None = None
    within_s: Annotated[float, Field(gt=0, le=EVER_S, allow_inf_nan=False)] = EVER_S


class FiguresQuery(Query):
    """Of how many of the last seconds figures are asked for."""

    within_s: Annotated[float, Field(gt=0, le=LONGEST_S, allow_inf_nan=False)] = HOUR_S


class LookingBack:
    """Asks the event database in the name of whoever looks: that one's tenant is given its own rows, and one
    that operates the mesh all."""

    def __init__(self, context: GatewayContext) -> None:
        self._context = context

    def routes(self) -> tuple[Route, ...]:
        """Where it is served."""
        return (
            Route("/api/distributed/requests", self.requests),
            Route("/api/distributed/requests/{request_id}", self.request),
            Route("/api/distributed/metrics", self.metrics),
        )

    @asks(RequestsQuery)
    async def requests(self, request: Request) -> Response:
        """The latest requests, the newest first: of the caller's own tenant, for operators of all."""
        wanted = asked(request, RequestsQuery)
        tenant = self._tenant_of_rows(wanted.tenant)
        if tenant is None:
            return json_reply({"requests": []})
        texts = {name: getattr(wanted, name) or "" for name in ("state", "model", "strategy", "id")}
        parameters = {**Filter(**texts, tenant=tenant).parameters, "within_s": wanted.within_s}
        await check_metrics(self._context.mesh)
        rows = await latest(self._context.mesh, parameters, wanted.limit)
        return json_reply({"requests": [self._with_tenant(row) for row in rows]})

    def _tenant_of_rows(self, wanted: str | None) -> str | None:
        """The tenant whose requests are listed, empty for all that the caller is given; None for another
        tenant's, which it does not see."""
        if sees_all(self._context):
            return wanted or ""
        if wanted not in (None, self._context.tenant):
            return None
        return ""  # the others are given no rows but their own

    def _with_tenant(self, row: dict[str, Any]) -> dict[str, Any]:
        """With whose request it is. Its id is what `requests/{id}` takes."""
        whole = sees_all(self._context)
        owner = subjects.owner_of(row["request_id"]) if whole else self._context.tenant
        return {**row, "tenant": owner}

    async def request(self, request: Request) -> Response:
        """What became of a request: the result with its answers and votes, and in `waterfall` what each
        service did for it, and when. An error, also that there is no result yet (409), has `waterfall` too.
        Where that cannot be told `waterfall_error` says why. Another tenant's has no result here."""
        wanted = named(self._context, request.path_params["request_id"])
        result, way = await asyncio.gather(self._result(wanted), self._way(wanted))
        if isinstance(result, ChoirError):
            known = way.get("waterfall") is not None
            if not wanted.own and known:
                return json_reply({"request_id": wanted.id, "tenant": wanted.owner, **way})
            fields = {**error_body(result), **(way if known else {})}
            return json_reply(fields, status_of(result), headers_of(result))
        return json_reply({**result, **way})

    async def _result(self, wanted: NamedRequest) -> dict[str, Any] | ChoirError:
        try:
            result = await result_under(self._context.mesh, wanted)
        except ChoirError as error:
            return error
        return result.model_dump(mode="json", exclude_none=True)

    async def _way(self, wanted: NamedRequest) -> dict[str, Any]:
        """The waterfall, as `choir trace --json` has it; null as long as no event tells of the request."""
        try:
            await check_metrics(self._context.mesh)
            fall = await way_of(self._context.mesh, wanted)
        except ChoirError as error:
            return {"waterfall": None, "waterfall_error": error.body().model_dump(exclude_none=True)}
        return {"waterfall": None if fall is None else document(fall).model_dump(exclude_none=True)}

    @asks(FiguresQuery)
    async def metrics(self, request: Request) -> Response:
        """Figures of the mesh over the last seconds, by queries that come with Choir: sums in `total`, the
        rows of each query under its name."""
        wanted = asked(request, FiguresQuery)
        since_s = time.time() - wanted.within_s
        await check_metrics(self._context.mesh)
        told: dict[str, Any] = {"since_s": since_s, "total": (await self._rows("recent_rates", since_s))[0]}
        for name in FIGURES:
            told[name] = await self._rows(name, since_s)
        return json_reply(told)

    async def _rows(self, name: str, since_s: float) -> list[dict[str, Any]]:
        """The rows of a query that comes with Choir, from a Unix time on."""
        query = shipped(name)
        moment = datetime.fromtimestamp(since_s, UTC).replace(tzinfo=None).isoformat()
        given = {"since_s": str(since_s), "since": moment}
        taken = {one.name: given[one.name] for one in query.parameters if one.name in given}
        values: dict[str, Scalar] = query.values(taken)
        return (await self._context.mesh.sql(query.statement, values)).by_name()
