"""Who has which API keys made and changed."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio
from nats.aio.client import Client

from schemas.errors import NotPermitted
from schemas.requests.keys import KEY_SCOPES, ApiKey, KeyChange, KeyLimits, ManageKeys
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


LIMITED = KeyLimits(requests_in_flight=2, tokens_per_minute=100, requests_per_minute=10, batch_share=0.5)


@pytest.mark.parametrize(
    ("limit", "more"),
    [
        ("requests_in_flight", 3),
        ("tokens_per_minute", 101),
        ("requests_per_minute", 11),
        ("batch_share", 0.6),
        *((name, None) for name in KeyLimits.model_fields),
    ],
)
def test_a_key_makes_none_with_a_higher_limit(limit: str, more: float | None) -> None:
    own = key_of(OLGA, "one").model_copy(update={"limits": LIMITED})
    made = own.model_copy(update={"limits": LIMITED.model_copy(update={limit: more})})
    assert own.exceeded_by(own) is None
    assert own.exceeded_by(made) == f"limits.{limit}"
    assert made.exceeded_by(own) is None


def test_a_key_of_batch_work_makes_none_that_goes_before_others() -> None:
    first, waits = key_of(OLGA, "one"), key_of(OLGA, "two").model_copy(update={"priority": "batch"})
    assert waits.exceeded_by(waits) is None is first.exceeded_by(waits)
    assert waits.exceeded_by(first) == "priority"


async def test_a_key_is_changed_to_no_more_than_the_one_that_is_shown_for_it(
    connection: Client, keys: Keys
) -> None:
    shown = key_of("alice", "shown").model_copy(update={"limits": LIMITED, "priority": "batch"})
    alice = Caller(connection, "", tenant="alice")
    alice.shown = shown
    await keys.manage(ManageKeys(action="add", key=shown.model_copy(update={"id": "another"})), alice)
    for change, field in (
        (
            KeyChange(limits=LIMITED.model_copy(update={"requests_per_minute": 11})),
            "limits.requests_per_minute",
        ),
        (KeyChange(limits=LIMITED.model_copy(update={"batch_share": None})), "limits.batch_share"),
        (KeyChange(priority="interactive"), "priority"),
    ):
        with pytest.raises(NotPermitted, match="may do more than itself") as error:
            await keys.manage(ManageKeys(action="change", id="another", change=change), alice)
        assert error.value.field == f"key.{field}"
