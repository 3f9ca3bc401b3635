"""Finds the result of a request by its id, also where a gateway has answered it from its memory: the mesh was
not asked under such an id, but the event database knows whose result it got."""

from __future__ import annotations

from ulid import ULID

from schemas.errors import ChoirError, UnknownRequest
from schemas.replies import Result
from schemas.subjects import bare_id, owned_id
from services.client.client import Choir

SHARED_FROM = "SELECT cached_from FROM request_shared WHERE request_id = $id::VARCHAR LIMIT 1"


async def result_under(mesh: Choir, tenant: str, request_id: str) -> Result:
    """The result of a tenant's request; its error is raised. Raises what `Choir.fetch` does."""
    try:
        return await mesh.fetch(request_id)
    except UnknownRequest:
        source = await _source(mesh, tenant, request_id)
        if source is None:
            raise
    return (await mesh.fetch(source)).standing_for(request_id, "hit")


async def _source(mesh: Choir, tenant: str, request_id: str) -> str | None:
    """Whose result a request got; None if nobody knows. Only ids that a gateway made can be of that kind."""
    try:
        ULID.from_str(request_id)
        rows = (await mesh.sql(SHARED_FROM, {"id": owned_id(tenant, request_id)})).rows
    except (ValueError, ChoirError):
        return None
    return bare_id(str(rows[0][0])) if rows else None
