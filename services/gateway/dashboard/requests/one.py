"""One request, at a link that stays: answers, votes, steps, where the time went, what happened."""

from __future__ import annotations

import asyncio

from starlette.requests import Request
from starlette.responses import Response

from schemas.errors import ChoirError, NotReady, UnknownRequest
from schemas.replies import Result
from schemas.requests.queries import Rows
from services.client.client import Choir
from services.client.queries.trace.pieces import Waterfall
from services.gateway.dashboard.requests.parts import result_html, time_html
from services.gateway.dashboard.shell.frame import Frame
from services.gateway.dashboard.shell.pages import SECURITY, fragment
from services.gateway.history.found_results import result_under
from services.gateway.history.owning import NamedRequest, named
from services.gateway.history.way import PIECES, way_of
from services.gateway.http.streaming import StreamedReply

MOST_EVENTS = 500
LOOK_EVERY_S = 1.0
EVENTS = """
SELECT epoch("at") AS at_s, kind, service, instance, host
FROM events WHERE request_id = $id::VARCHAR ORDER BY "at", event_id
"""


class OneRequest:
    """What is known of a request at one moment; it is `over` when nothing more is to come."""

    def __init__(self, request: NamedRequest) -> None:
        self.request = request
        self.request_id = request.id
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
        self.over = (result is not None or failure is not None or not self.request.own) and (
            missing is not None or bool(fall and fall.is_over)
        )
        self._parts = {
            "answer": "" if result is None else result_html(result, own_page=True),
            "time": time_html(fall),
            "events": fragment("requests/events.html.j2", events=() if events is None else events.by_name()),
            "waiting": fragment(
                "requests/waiting.html.j2",
                request=self,
                result=result,
                failure=failure,
                missing=missing,
                own=self.request.own,
            ),
        }
        return self._parts

    async def _result(self, mesh: Choir) -> tuple[Result | None, ChoirError | None]:
        """The result, if there is one, or why there will be none."""
        if not self.request.own:
            return None, None
        try:
            return await result_under(mesh, self.request), None
        except NotReady:
            return None, None
        except ChoirError as error:
            return None, error

    async def _history(self, mesh: Choir) -> tuple[Waterfall | None, Rows | None, str | None]:
        """Where the time went and what happened, or why that cannot be told."""
        try:
            fall, events = await asyncio.gather(
                way_of(mesh, self.request),
                mesh.sql(EVENTS, {"id": self.request.row_id}, max_rows=MOST_EVENTS),
            )
        except ChoirError as error:
            return None, None, error.message
        return fall, events, None


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

        return self._frame.live(("request", one.request), look, LOOK_EVERY_S)

    async def as_json(self, request: Request) -> Response:
        """The result as the mesh has it. Raises NotReady while there is none."""
        one = self._named(request)
        result = await result_under(self._frame.context.mesh, one.request)
        return Response(result.to_bytes(), 200, SECURITY, "application/json")

    def _named(self, request: Request) -> OneRequest:
        """The request that the path names. Raises UnknownRequest."""
        return OneRequest(named(self._frame.context, request.path_params["request_id"]))
