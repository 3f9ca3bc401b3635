"""Whose requests a caller sees, and by which ids the event database knows them."""

from __future__ import annotations

from dataclasses import dataclass

from schemas import subjects
from schemas.errors import UnknownRequest
from services.gateway.access.caller import current_caller
from services.gateway.http.context import GatewayContext


@dataclass(frozen=True)
class NamedRequest:
    """A request that a path names: its `owner`, the `id` by which that one knows it, and `row_id`, by which
    the event database does in the rows that the caller is given. `own` says that the caller is its owner."""

    owner: str
    id: str
    row_id: str
    own: bool


def sees_all(context: GatewayContext) -> bool:
    """Whether the caller may see what other tenants asked: one of a tenant that operates the mesh, whose key,
    where it has one, may `observe`."""
    key = current_caller.get().key
    return context.keyring.tenants.sees_all(context.tenant) and (key is None or "observe" in key.scopes)


def named(context: GatewayContext, said: str) -> NamedRequest:
    """The request of a path, which says its owner and its id in one, as an operator's list does, or the id
    alone of one of the caller's own.

    Raises UnknownRequest; also for another tenant's, unless the caller sees those.
    """
    bare, tenant = subjects.bare_id(said), context.tenant
    try:
        owner = tenant if bare == said else subjects.owner_of(said)
    except ValueError as error:
        raise UnknownRequest(f"request_id: {said!r} is none", field="request_id") from error
    if owner != tenant and not sees_all(context):
        raise UnknownRequest(f"request_id: there is no request {said!r}", field="request_id")
    # Whoever is given the rows of its own tenant alone finds ids there as that one knows them.
    whole = sees_all(context)
    return NamedRequest(owner, bare, subjects.owned_id(owner, bare) if whole else bare, owner == tenant)
