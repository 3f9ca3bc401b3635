"""Whose a request is: what belongs to another tenant is what nobody knows."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from infra.testing.broker.broker_reads import BrokerReads
from infra.testing.mesh import events, eventually
from schemas import subjects
from schemas.nodes.lease import TenantLoad
from schemas.replies import Accepted, Cancelled, NodesReply, Result, StatusReply
from services.chassis.identity import Identity
from services.chassis.registry.lease import Lease, Load
from services.router.tests.front import Front, Stream

ALICE, BOB = "alice", "bob"
ASKED = {"prompt": "hi", "model": "alpha", "request_id": "r1"}


def at(tenant: str, subject: str) -> str:
    return subjects.door(tenant, subject)


async def submit(front: Front, tenant: str, **fields: Any) -> str:
    """Asks as a tenant: the id by which that tenant knows the request."""
    reply = await front.request(at(tenant, subjects.SUBMIT), **{**ASKED, **fields})
    return Accepted.model_validate_json(reply.data).request_id


async def fetch(front: Front, tenant: str, request_id: str = "r1") -> Result:
    reply = await front.request(at(tenant, subjects.FETCH), request_id=request_id)
    return Result.model_validate_json(reply.data)


async def test_an_id_that_two_tenants_choose_stands_for_two_requests(front: Front) -> None:
    for tenant in (subjects.LOCAL_TENANT, ALICE, BOB):
        assert await submit(front, tenant, prompt=f"I am {tenant}") == "r1"
        await front.finish(subjects.owned_id(tenant, "r1"), f"hello {tenant}")
    for tenant in (subjects.LOCAL_TENANT, ALICE, BOB):
        result = await fetch(front, tenant)
        assert (result.text, result.request_id) == (f"hello {tenant}", "r1")
        assert [answer.request_id for answer in result.answers] == ["r1"]


async def test_an_id_that_the_router_makes_is_its_tenants_as_well(front: Front) -> None:
    request_id = await submit(front, ALICE, request_id=None)
    await front.finish(subjects.owned_id(ALICE, request_id))
    assert (await fetch(front, ALICE, request_id)).request_id == request_id
    assert (await front.refused(at(BOB, subjects.FETCH), request_id=request_id)).code == "unknown_request"


async def test_a_tenants_text_comes_under_its_own_id_and_to_nobody_else(front: Front) -> None:
    ours = await Stream(front).open(at(ALICE, subjects.STREAM_ASK), **ASKED, stream=True)
    await front.command("alice=r1")
    await front.say("alice=r1", 0, "the giraffe", done=True)
    chunk = await ours.chunk()
    assert (chunk.request_id, chunk.text) == ("r1", "the giraffe")
    theirs = {"request_id": "r1", "stream": True, "after_sequence": 1, "wait_s": 30}
    for tenant in (BOB, subjects.LOCAL_TENANT):
        error = await front.refused(at(tenant, subjects.STREAM_FETCH), **theirs)
        assert error.code == "unknown_request"
    await front.finish("alice=r1", chunks=1)
    assert (await ours.result()).request_id == "r1"


async def test_another_tenants_request_cannot_be_cancelled(front: Front) -> None:
    await submit(front, ALICE)
    for tenant in (BOB, subjects.LOCAL_TENANT):
        error = await front.refused(at(tenant, subjects.CANCEL), request_id="r1")
        assert (error.code, error.field) == ("unknown_request", "request_id")
    reply = await front.request(at(ALICE, subjects.CANCEL), request_id="r1")
    assert Cancelled.model_validate_json(reply.data) == Cancelled(request_id="r1", cancelled=True)
    result = await fetch(front, ALICE)
    assert result.error is not None
    assert (result.error.code, result.error.request_id) == ("cancelled", "r1")


@pytest.mark.parametrize("subject", [subjects.ASK, subjects.SUBMIT, subjects.FETCH, subjects.CANCEL])
async def test_no_id_of_a_client_can_look_like_anothers(front: Front, subject: str) -> None:
    error = await front.refused(subject, **{**ASKED, "request_id": "alice=r1"})
    assert (error.code, error.field) == ("invalid_request", "request_id")


@pytest.mark.parametrize("subject", [subjects.FETCH, subjects.CANCEL])
async def test_an_id_of_another_takes_the_same_reads_as_one_that_does_not_exist(
    front: Front, subject: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    await submit(front, ALICE, request_id="queued")
    await submit(front, ALICE, request_id="finished")
    await front.finish("alice=finished")

    reads = BrokerReads(monkeypatch)
    ways = [
        await reads.way_of(front.client, at(BOB, subject), one) for one in ("nothing", "queued", "finished")
    ]
    assert ways[0][0] and b"unknown_request" in ways[0][1]
    assert ways[0] == ways[1] == ways[2]


async def test_every_event_of_a_request_says_whose_it_is(front: Front) -> None:
    for tenant in (subjects.LOCAL_TENANT, ALICE):
        asked = asyncio.create_task(front.request(at(tenant, subjects.ASK), **ASKED))
        await front.finish(subjects.owned_id(tenant, "r1"))
        await asked

    async def owners() -> set[tuple[str | None, str | None]] | None:
        told = [event for event in await events(front.client) if event.request_id is not None]
        replied = {event.request_id for event in told if event.kind == "request_replied"}
        return {(e.request_id, e.tenant) for e in told} if replied == {"r1", "alice=r1"} else None

    assert await eventually(owners) == {("r1", "local"), ("alice=r1", "alice")}


async def test_who_operates_nothing_is_not_shown_what_others_have_in_work(front: Front) -> None:
    await submit(front, ALICE)
    await submit(front, BOB, request_id="r2")
    await submit(front, BOB, request_id="r3")
    lease = Lease(
        front.client,
        Identity("router", "router-9"),
        lambda: Load(tenants={ALICE: TenantLoad(in_flight=5), BOB: TenantLoad(in_flight=7)}),
    )
    await lease.start()

    async def seen(tenant: str) -> set[str]:
        reply = await front.request(at(tenant, subjects.NODES))
        nodes = NodesReply.model_validate_json(reply.data).nodes
        return {name for node in nodes for name in node.tenants}

    async def everything() -> bool:
        return await seen(subjects.LOCAL_TENANT) == {ALICE, BOB}

    await eventually(everything)
    assert await seen(ALICE) == {ALICE}

    async def status(tenant: str) -> tuple[int, int]:
        found = StatusReply.model_validate_json((await front.request(at(tenant, subjects.STATUS))).data)
        return found.queued, found.results

    await front.finish("alice=r1")
    assert await status(subjects.LOCAL_TENANT) == (2, 1)
    assert await status(BOB) == (2 + 7, 0)
    await lease.stop()
