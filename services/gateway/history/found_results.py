"""Finds the result of a request by its id, also where a gateway has answered it from its memory: the mesh was
not asked under such an id, but the event database knows whose result it got."""

from __future__ import annotations

from ulid import ULID

from schemas.errors import ChoirError, UnknownRequest
from schemas.replies import Result
from schemas.subjects import bare_id
from services.client.client import Choir
from services.gateway.history.owning import NamedRequest
from services.gateway.history.told import told_error, told_result

SHARED_FROM = "SELECT cached_from FROM request_shared WHERE request_id = $id::VARCHAR LIMIT 1"


async def result_under(mesh: Choir, request: NamedRequest) -> Result:
    """The result of a request of the caller's own, as that one is told it; its error is raised. Raises what
    `Choir.fetch` does, and UnknownRequest for another tenant's."""
    if not request.own:
        raise UnknownRequest(
            f"request_id: {request.id!r} is a request of {request.owner}, who alone sees its result"
        )
    try:
        return told_result(await _found(mesh, request))
    except ChoirError as error:
        raise told_error(error) from error


async def _found(mesh: Choir, request: NamedRequest) -> Result:
    try:
        return await mesh.fetch(request.id)
    except UnknownRequest:
        source = await _source(mesh, request)
        if source is None:
            raise
    return (await mesh.fetch(source)).standing_for(request.id, "hit")


async def _source(mesh: Choir, request: NamedRequest) -> str | None:
    """Whose result a request got; None if nobody knows. Only ids that a gateway made can be of that kind."""
    try:
        ULID.from_str(request.id)
        rows = (await mesh.sql(SHARED_FROM, {"id": request.row_id})).rows
    except (ValueError, ChoirError):
        return None
    return bare_id(str(rows[0][0])) if rows else None
