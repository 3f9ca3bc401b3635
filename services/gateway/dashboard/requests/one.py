"""One request, at a link that stays: answers, votes, steps, where the time went, what happened."""

from __future__ import annotations

import asyncio

from starlette.requests import Request
from starlette.responses import Response

from analysis.trace.pieces import QUERY, Waterfall, waterfall
from schemas import subjects
from schemas.errors import ChoirError, NotReady, UnknownRequest
from schemas.replies import Result
from schemas.requests.queries import Rows
from services.client.client import Choir
from services.gateway.dashboard.requests.parts import result_html, time_html
from services.gateway.dashboard.shell.frame import Frame
from services.gateway.dashboard.shell.pages import SECURITY, fragment
from services.gateway.dashboard.shell.rows import rows_of
from services.gateway.http.streaming import StreamedReply
from services.gateway.requests.found_results import result_under

MOST_EVENTS = 500
LOOK_EVERY_S = 1.0
EVENTS = """
SELECT epoch("at") AS at_s, kind, service, instance, host
FROM events WHERE request_id = $id::VARCHAR ORDER BY "at", event_id
"""
PIECES = QUERY.read_text(encoding="utf-8")


class OneRequest:
    """What is known of a request at one moment; it is `over` when nothing more is to come."""

    def __init__(self, owner: str, request_id: str, own: bool) -> None:
        self.owner = owner
        self.request_id = request_id
        self._own = own
        self.over = False
        self._parts: dict[str, str] = {}

    async def look(self, mesh: Choir) -> dict[str, str]:
        """The fragments of the page. Raises UnknownRequest where nobody knows the request."""
        if self.over:
            return self._parts
        (result, failure), (fall, events, missing) = await asyncio.gather(
            self._result(mesh), self._history(mesh)
        )
        if isinstance(failure, UnknownRequest) and not (events and events.rows):
            raise failure
        self.over = (result is not None or failure is not None or not self._own) and (
            missing is not None or bool(fall and fall.is_over)
        )
        self._parts = {
            "answer": "" if result is None else result_html(result, own_page=True),
            "time": time_html(fall),
            "events": fragment("requests/events.html.j2", events=() if events is None else rows_of(events)),
            "waiting": fragment(
                "requests/waiting.html.j2",
                request=self,
                result=result,
                failure=failure,
                missing=missing,
                own=self._own,
            ),
        }
        return self._parts

    async def _result(self, mesh: Choir) -> tuple[Result | None, ChoirError | None]:
        """The result, if there is one, or why there will be none."""
        if not self._own:
            return None, None
        try:
            return await result_under(mesh, self.owner, self.request_id), None
        except NotReady:
            return None, None
        except ChoirError as error:
            return None, error

    async def _history(self, mesh: Choir) -> tuple[Waterfall | None, Rows | None, str | None]:
        """Where the time went and what happened, or why that cannot be told."""
        stored = subjects.owned_id(self.owner, self.request_id)
        try:
            pieces, events = await asyncio.gather(
                mesh.sql(PIECES, {"request_id": stored}),
                mesh.sql(EVENTS, {"id": stored}, max_rows=MOST_EVENTS),
            )
        except ChoirError as error:
            return None, None, error.message
        columns = [column.name for column in pieces.columns]
        return waterfall(self.request_id, columns, pieces.rows), events, None


class RequestPage:
    """Shows what is known of a request, from its result and from the event database."""

    def __init__(self, frame: Frame) -> None:
        self._frame = frame

    async def page(self, request: Request) -> Response:
        """The page. A request without a result yet has one too, which fills by itself; one that nobody knows
        is 404. Of another tenant's it has what the event database tells."""
        one = self._named(request)
        parts = await one.look(self._frame.context.mesh)
        said = request.path_params["request_id"]
        return self._frame.page(
            "requests/one.html.j2",
            "requests",
            None if one.over else f"/dashboard/requests/{said}/live",
            request_id=one.request_id,
            parts=parts,
            sql={"where the time went": PIECES.strip(), "events": EVENTS.strip()},
        )

    async def live(self, request: Request) -> StreamedReply:
        """The same, as it comes."""
        one, mesh = self._named(request), self._frame.context.mesh

        async def look() -> dict[str, str]:
            return await one.look(mesh)

        return self._frame.live(("request", one.owner, one.request_id), look, LOOK_EVERY_S)

    async def as_json(self, request: Request) -> Response:
        """The result as the mesh has it. Raises NotReady while there is none."""
        one = self._named(request)
        result = await result_under(self._frame.context.mesh, one.owner, one.request_id)
        return Response(result.to_bytes(), 200, SECURITY, "application/json")

    def _named(self, request: Request) -> OneRequest:
        """The request that the path names: an operator's list has owner and id in one.

        Raises UnknownRequest.
        """
        said, tenant = request.path_params["request_id"], self._frame.context.tenant
        bare = subjects.bare_id(said)
        try:
            owner = tenant if bare == said else subjects.owner_of(said)
        except ValueError as error:
            raise UnknownRequest(f"request_id: {said!r} is none", field="request_id") from error
        return OneRequest(owner, bare, owner == tenant)
