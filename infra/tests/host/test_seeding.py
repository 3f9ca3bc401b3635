"""The tenants of choir.toml in the bucket."""

from __future__ import annotations

from nats.aio.client import Client

from infra.host.seeding import seed_tenants
from schemas import subjects
from schemas.requests.tenants import Tenant, TenantLimits
from services.chassis.nats.bucket import Bucket, messages


async def test_what_the_bucket_knows_of_a_tenant_counts_for_more_than_the_file(connection: Client) -> None:
    await seed_tenants(connection, [Tenant(name="alice", role="observe")])
    bucket = Bucket(connection, subjects.TENANTS_BUCKET, messages(Tenant))
    seeded = (await bucket.get(subjects.tenant_key("alice"))).value
    assert seeded is not None and (seeded.role, seeded.created_at_s > 0) == ("observe", True)

    revoked = seeded.model_copy(update={"revoked_at_s": 1.0})
    await bucket.put(subjects.tenant_key("alice"), revoked)
    limited = Tenant(name="bob", limits=TenantLimits(requests_in_flight=4))
    await seed_tenants(connection, [Tenant(name="alice"), limited])
    assert (await bucket.get(subjects.tenant_key("alice"))).value == revoked
    bob = (await bucket.get(subjects.tenant_key("bob"))).value
    assert bob is not None and bob.limits.requests_in_flight == 4
