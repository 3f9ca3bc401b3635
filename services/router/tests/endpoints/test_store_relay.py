"""What gateways ask of stores: passed on to those that there are, and told at once where there are none."""

from __future__ import annotations

import asyncio

import pytest
from nats.aio.client import Client
from nats.aio.msg import Msg

from infra.testing.mesh import DEADLINE_S
from schemas import subjects
from schemas.errors import MeshUnreachable
from schemas.nodes.lease import NodeLease
from schemas.nodes.model_store import ManageStore, StoreReply
from schemas.subjects import LOCAL_TENANT
from schemas.tests.golden.shared import LEASE
from services.chassis.nats.endpoints import Caller
from services.router.endpoints import store_relay
from services.router.endpoints.store_relay import STORE_SERVICE, StoreRelay

DOOR = subjects.door(LOCAL_TENANT, subjects.STORE)
STORE = LEASE.model_copy(update={"service": STORE_SERVICE, "instance": "store-1"})


async def test_where_no_store_has_a_lease_nobody_waits_for_one(
    connection: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store_relay, "NOBODY_S", 3_600.0)
    relay = StoreRelay(connection, lambda: (LEASE,))
    with pytest.raises(MeshUnreachable, match="no store of models answers"):
        async with asyncio.timeout(DEADLINE_S):
            await relay.relay(ManageStore(), Caller(connection, "", key="k-1"))


async def test_a_store_that_is_just_being_started_anew_is_waited_for(
    connection: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store_relay, "NOBODY_S", 3_600.0)
    looked = asyncio.Event()

    def nodes() -> tuple[NodeLease, ...]:
        looked.set()
        return (STORE,)

    async def answer(msg: Msg) -> None:
        await msg.respond(StoreReply().to_bytes())

    inbox = connection.new_inbox()
    told = await connection.subscribe(inbox)
    relaying = asyncio.create_task(
        StoreRelay(connection, nodes).relay(ManageStore(), Caller(connection, inbox))
    )
    async with asyncio.timeout(DEADLINE_S):
        await looked.wait()
        await connection.subscribe(DOOR, cb=answer)
        await relaying
        assert StoreReply.read((await told.next_msg(timeout=DEADLINE_S)).data) == StoreReply()
