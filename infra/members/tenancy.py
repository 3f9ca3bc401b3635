"""Changing tenants and hosts: how much a tenant may take, and who is let in no more."""

from __future__ import annotations

import time
from collections.abc import Callable

from schemas import subjects
from schemas.errors import InvalidRequest
from schemas.nodes.joining import Host
from schemas.requests.tenants import Tenant, TenantLimits
from services.chassis.nats.bucket import Bucket


async def limited(
    tenants: Bucket[Tenant],
    name: str,
    limits: Callable[[TenantLimits], TenantLimits],
    weight: float | None,
) -> Tenant:
    """A tenant with other limits. InvalidRequest if there is none of that name."""

    def change(known: Tenant | None) -> Tenant:
        found = existing(name, known)
        return found.model_copy(update={"limits": limits(found.limits), "weight": weight or found.weight})

    return await tenants.change(subjects.tenant_key(name), change)


async def revoked(tenants: Bucket[Tenant], name: str) -> Tenant:
    """A tenant that is let in no more; its connections end. InvalidRequest if there is none of that name."""

    def change(known: Tenant | None) -> Tenant:
        found = existing(name, known)
        return found if found.revoked_at_s else found.model_copy(update={"revoked_at_s": time.time()})

    return await tenants.change(subjects.tenant_key(name), change)


async def revoked_host(hosts: Bucket[Host], name: str) -> Host:
    """A host that is let in no more, nor any of its processes; their connections end. InvalidRequest if there
    is none of that name."""

    def change(known: Host | None) -> Host:
        if known is None:
            raise InvalidRequest(f"no host {name} has joined: `choir hosts list` shows them", field="name")
        return known if known.revoked_at_s else known.model_copy(update={"revoked_at_s": time.time()})

    return await hosts.change(subjects.host_key(name), change)


def existing(name: str, known: Tenant | None) -> Tenant:
    """The tenant. InvalidRequest if there is none."""
    if known is None:
        raise InvalidRequest(f"there is no tenant {name}: `choir tenants list` shows them", field="name")
    return known
