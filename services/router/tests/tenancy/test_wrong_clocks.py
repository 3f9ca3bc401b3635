"""A router on a host whose clock is wrong lets in, and moves cuts, by the broker's time."""

from __future__ import annotations

import json
import time
from collections.abc import AsyncIterator, Callable

import pytest
import pytest_asyncio
from nats.aio.client import Client

from infra.testing.mesh import DEADLINE_S, eventually
from schemas import subjects
from schemas.replies import ErrorReply
from schemas.requests.keys import ApiKey, digest_of, new_secret
from schemas.requests.tenants import Tenant
from services.chassis.nats.bucket import Bucket, messages
from services.router.placement.tests.offering import LAYERS, shardable
from services.router.tests.front import Front, open_front
from services.router.tests.offering import offered, open_offering
from services.router.tests.test_moving_cuts import SOON
from services.router.tests.test_shard import nodes_are, plan_changed, planned

AN_HOUR_S, TOLERANCE_S = 3_600.0, 180.0
ALICE = "alice"
REAL: Callable[[], float] = time.time


@pytest.fixture(params=[AN_HOUR_S, -AN_HOUR_S])
def ahead_s(request: pytest.FixtureRequest) -> float:
    """How far the clock of the router's host is ahead of the broker's."""
    ahead: float = request.param
    return ahead


@pytest_asyncio.fixture
async def front(
    connection: Client, mesh_url: str, monkeypatch: pytest.MonkeyPatch, ahead_s: float
) -> AsyncIterator[Front]:
    monkeypatch.setattr(time, "time", lambda: REAL() + ahead_s)
    async with open_front(connection, mesh_url, **SOON) as opened:
        await opened.mesh.clock.measure(180.0)
        yield opened


async def code(front: Front, subject: str, *, secret: str = "", **fields: str) -> str | None:
    """The code of the error with which a request is refused, None if it is not."""
    headers = {subjects.API_KEY_HEADER: secret} if secret else None
    body = json.dumps(fields).encode()
    reply = await front.client.request(subject, body, timeout=DEADLINE_S, headers=headers)
    if subjects.ERROR_CODE_HEADER not in (reply.headers or {}):
        return None
    return ErrorReply.model_validate_json(reply.data).error.code


async def test_a_tenant_is_let_in_until_the_broker_says_that_its_time_is_over(
    front: Front, ahead_s: float
) -> None:
    # Given a tenant whose time is over at the router's host alone, or everywhere else
    tenants = Bucket(front.client, subjects.TENANTS_BUCKET, messages(Tenant))
    ends_at_s = REAL() + ahead_s / 2
    await tenants.put(subjects.tenant_key(ALICE), Tenant(name=ALICE, expires_at_s=ends_at_s))
    await eventually(lambda: front.router._tenants.find(ALICE))
    # Then the broker's time decides
    refused = await code(
        front, subjects.door(ALICE, subjects.SUBMIT), prompt="hi", model="alpha", request_id="r1"
    )
    assert refused == (None if ahead_s > 0 else "not_permitted")
    assert (ALICE in [tenant.name for tenant in front.router._tenants.known]) == (ahead_s > 0)


async def test_an_api_key_opens_what_it_opens_until_the_broker_says_that_its_time_is_over(
    front: Front, ahead_s: float
) -> None:
    secret = new_secret("k-1")
    key = ApiKey(
        id="k-1", digest=digest_of(secret), ending=secret[-4:], created_at_s=0.0, scopes=("observe",),
        expires_at_s=REAL() + ahead_s / 2,
    )  # fmt: skip
    await Bucket(front.client, subjects.KEYS_BUCKET, messages(ApiKey)).put(subjects.api_key("k-1"), key)
    door = subjects.keyed_door(subjects.LOCAL_TENANT, subjects.NODES)
    assert await code(front, door, secret=secret) == (None if ahead_s > 0 else "unauthenticated")


async def test_the_time_of_a_move_is_the_broker_s(front: Front) -> None:
    """Another router, on a host with another clock, sees from that when to call the move off."""
    slow = offered("b", shardable(layer_ms=2.0, last_ms=0.0))
    fast = offered("a", shardable(layer_ms=1.0, last_ms=0.0))
    async with open_offering(front.client, fast, slow) as two:
        await nodes_are(front, "a", "b")
        placed = await planned(front, assign=["a", "b"], force=True)
        await two.load_plan(placed, busy=8, layer_ms=1.0)
        plan = await plan_changed(front, placed.epoch)
    assert plan.moving is not None and plan.moving.ends == (6, LAYERS)
    told = (plan.moving.at_s, plan.made_at_s, placed.made_at_s)
    assert told == pytest.approx((REAL(),) * 3, abs=TOLERANCE_S)
