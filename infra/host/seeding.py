"""The tenants of choir.toml in the bucket of tenants, where everybody else looks."""

from __future__ import annotations

import time
from collections.abc import Iterable
from functools import partial

from nats.aio.client import Client

from schemas import subjects
from schemas.requests.tenants import Tenant
from services.chassis.nats.bucket import Bucket, messages


async def seed_tenants(client: Client, tenants: Iterable[Tenant]) -> None:
    """Puts those that the bucket does not know. What it knows stays: there they are changed and revoked.

    Raises BrokerUnavailable.
    """
    bucket = Bucket(client, subjects.TENANTS_BUCKET, messages(Tenant))
    for tenant in tenants:
        new = tenant.model_copy(update={"created_at_s": tenant.created_at_s or time.time()})
        await bucket.change(subjects.tenant_key(tenant.name), partial(_unless_known, new))


def _unless_known(new: Tenant, known: Tenant | None) -> Tenant:
    return known or new
