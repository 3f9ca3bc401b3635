"""One request, at a link that stays: answers, votes, steps, where the time went, what happened."""

from __future__ import annotations

import contextlib

from starlette.requests import Request
from starlette.responses import Response

from schemas import subjects
from schemas.errors import ChoirError, NotReady, UnknownRequest
from schemas.replies import Result
from services.gateway.context import GatewayContext
from services.gateway.dashboard.pages import SECURITY, page
from services.gateway.dashboard.rows import Rows, rows_of
from services.gateway.dashboard.waterfall import bars

MOST_EVENTS = 500
TASKS = """
SELECT
    model AS name, epoch("at") AS ended_at_s, round, host, instance, queue_ms, slot_ms, load_ms,
    prompt_eval_ms, eval_ms, total_ms
FROM tasks WHERE request_id = $id::VARCHAR ORDER BY "at"
"""
EVENTS = """
SELECT epoch("at") AS at_s, kind, service, instance, host
FROM events WHERE request_id = $id::VARCHAR ORDER BY "at", event_id
"""


class RequestPage:
    """Shows what is known of a request, from its result and from the event database."""

    def __init__(self, context: GatewayContext) -> None:
        self._context = context

    async def page(self, request: Request) -> Response:
        """The page. A request without a result yet has one too; one that nobody knows is 404. Of another
        tenant's it has what the event database tells."""
        owner, request_id = self._owner_and_id(request)
        result: Result | None = None
        if owner == self._context.tenant:
            with contextlib.suppress(NotReady):
                result = await self._context.mesh.fetch(request_id)
        tasks, events, missing = await self._history(subjects.owned_id(owner, request_id))
        return page(
            "request.html.j2",
            active="requests",
            live=None,
            request_id=request_id,
            owner=owner if owner != self._context.tenant else None,
            result=result,
            answers=() if result is None else (*result.answers, *result.further_answers),
            bars=bars(tasks, result),
            events=events,
            missing=missing,
            sql={"tasks": TASKS.strip(), "events": EVENTS.strip()},
        )

    async def as_json(self, request: Request) -> Response:
        """The result as the mesh has it. Raises NotReady while there is none."""
        _, request_id = self._owner_and_id(request)
        result = await self._context.mesh.fetch(request_id)
        return Response(result.to_bytes(), 200, SECURITY, "application/json")

    def _owner_and_id(self, request: Request) -> tuple[str, str]:
        """Whose request the path names, and its id as that one knows it: an operator's list has both in one.

        Raises UnknownRequest.
        """
        said = request.path_params["request_id"]
        bare = subjects.bare_id(said)
        try:
            return (self._context.tenant if bare == said else subjects.owner_of(said)), bare
        except ValueError as error:
            raise UnknownRequest(f"request_id: {said!r} is none", field="request_id") from error

    async def _history(self, request_id: str) -> tuple[Rows, Rows, str | None]:
        """Its tasks, its events, and why these are missing if they are."""
        try:
            tasks = await self._context.mesh.sql(TASKS, {"id": request_id}, max_rows=MOST_EVENTS)
            events = await self._context.mesh.sql(EVENTS, {"id": request_id}, max_rows=MOST_EVENTS)
        except ChoirError as error:
            return (), (), error.message
        return rows_of(tasks), rows_of(events), None
