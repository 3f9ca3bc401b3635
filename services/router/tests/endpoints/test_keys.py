"""Who has which API keys made and changed."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio
from nats.aio.client import Client

from schemas.errors import NotPermitted
from schemas.requests.keys import KEY_SCOPES, ApiKey, KeyChange, ManageKeys
from schemas.subjects import LOCAL_TENANT
from services.chassis.nats.endpoints import Caller
from services.router.endpoints.keys import Keys

OLGA = "olga"
"""A tenant that operates the mesh."""


def key_of(tenant: str, key_id: str) -> ApiKey:
    return ApiKey(
        id=key_id, tenant=tenant, digest="0" * 64, ending="0000", created_at_s=0.0, scopes=KEY_SCOPES
    )


@pytest_asyncio.fixture
async def keys(connection: Client) -> AsyncIterator[Keys]:
    """The endpoint, and a key of the tenant alice."""
    keys = Keys(connection)
    await keys.start()
    await keys.manage(ManageKeys(action="add", key=key_of("alice", "hers")), Caller(connection, ""))
    yield keys


@pytest.mark.parametrize("shown", [True, False], ids=["by a key", "over NATS"])
async def test_a_tenant_that_operates_has_no_keys_of_others_made(
    connection: Client, keys: Keys, shown: bool
) -> None:
    olga, local = Caller(connection, "", tenant=OLGA), Caller(connection, "", tenant=LOCAL_TENANT)
    if shown:
        olga.shown, local.shown = key_of(OLGA, "olga"), key_of(LOCAL_TENANT, "local")
    for refused in (
        ManageKeys(action="add", key=key_of("alice", "stolen")),
        ManageKeys(action="add", key=key_of(LOCAL_TENANT, "raised")),
        ManageKeys(action="change", id="hers", change=KeyChange(scopes=("models", "operate"))),
    ):
        with pytest.raises(NotPermitted, match="has its own keys made") as error:
            await keys.manage(refused, olga)
        assert error.value.field == "key.tenant"
    # Its own it has made, and the mesh's own tenant any
    await keys.manage(ManageKeys(action="add", key=key_of(OLGA, "own")), olga)
    await keys.manage(ManageKeys(action="add", key=key_of("alice", "further")), local)
    await keys.manage(ManageKeys(action="change", id="hers", change=KeyChange(label="x")), local)
    # Any that opens too much it may end
    await keys.manage(ManageKeys(action="revoke", id="hers"), olga)


def test_a_key_makes_none_of_another_tenant() -> None:
    assert key_of(OLGA, "one").exceeded_by(key_of("alice", "two")) == "tenant"
    assert key_of(OLGA, "one").exceeded_by(key_of(LOCAL_TENANT, "two")) == "tenant"
    assert key_of(OLGA, "one").exceeded_by(key_of(OLGA, "two")) is None
    assert key_of(LOCAL_TENANT, "one").exceeded_by(key_of("alice", "two")) is None
