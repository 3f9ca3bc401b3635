"""Limits of tenants: held over all routers, told with a time to come again, and noticed by nobody else."""

from __future__ import annotations

import random
from types import SimpleNamespace
from typing import cast

import pytest
from nats.aio.client import Client

from infra.testing.mesh import DEADLINE_S, eventually
from schemas import subjects
from schemas.errors import NotPermitted, Overloaded
from schemas.nodes.lease import NodeLease, TenantLoad
from schemas.replies import Answer, ErrorReply, Result
from schemas.requests.tenants import QUEUE_LENGTH, Tenant
from schemas.requests.tenants import TenantLimits as Limits
from services.chassis.context import ServiceContext
from services.chassis.nats.bucket import Bucket, messages
from services.chassis.registry.directory import Directory
from services.chassis.registry.tenants import Tenants
from services.router.tenancy import limits as module
from services.router.tenancy.fair_queue import FairQueue
from services.router.tenancy.limits import LOOK_S, LOOKED_AT_A_SECOND, OPEN_BESIDES, TenantLimits
from services.router.tests.front import Front, Stream, open_front

ALICE = "alice"


async def change(client: Client, tenant: Tenant) -> None:
    bucket = Bucket(client, subjects.TENANTS_BUCKET, messages(Tenant))
    await bucket.put(subjects.tenant_key(tenant.name), tenant)


async def limited(front: Front, **limits: float) -> None:
    await change(front.client, Tenant.model_validate({"name": ALICE, "limits": limits}))


async def submitted(front: Front, tenant: str, request_id: str, priority: str = "interactive") -> str | None:
    """The code of the error, None if it was let in."""
    fields = {"prompt": "hi", "model": "alpha", "request_id": request_id, "priority": priority}
    reply = await front.request(subjects.door(tenant, subjects.SUBMIT), **fields)
    if subjects.ERROR_CODE_HEADER not in (reply.headers or {}):
        return None
    error = ErrorReply.model_validate_json(reply.data).error
    assert error.retry_after_s is not None and error.retry_after_s >= 1
    return error.code


async def test_a_tenant_at_its_limit_is_told_so_and_nobody_else_notices(front: Front) -> None:
    await limited(front, requests_in_flight=2)

    async def refused() -> bool:
        return await submitted(front, ALICE, "r3") == "overloaded"

    assert [await submitted(front, ALICE, f"r{n}") for n in (1, 2)] == [None, None]
    await eventually(refused)
    assert await submitted(front, ALICE, "r1") is None  # the same request is the same request
    assert await submitted(front, "bob", "r1") is None
    assert await submitted(front, subjects.LOCAL_TENANT, "r1") is None

    await front.finish("alice=r1")

    async def let_in() -> bool:
        return await submitted(front, ALICE, "r3") is None

    await eventually(let_in)
    assert await submitted(front, ALICE, "r4") == "overloaded"


async def test_a_tenant_that_waits_for_more_than_it_may_have_in_flight_is_refused_before_it_is_read(
    front: Front,
) -> None:
    await limited(front, requests_in_flight=1)
    assert await submitted(front, ALICE, "r1") is None

    async def told() -> bool:
        return await submitted(front, ALICE, "r2") == "overloaded"

    await eventually(told)
    # Given as many who wait for the result as one request in flight may have
    fetch = {"request_id": "r1", "wait_s": 600}
    waiting = [
        await Stream(front).open(subjects.door(ALICE, subjects.FETCH), **fetch)
        for _ in range(2 + OPEN_BESIDES)
    ]
    # Then one more is refused, whatever it says, and another tenant is answered
    refused = await front.refused(subjects.door(ALICE, subjects.FETCH), nonsense=1)
    assert refused.code == "overloaded"
    assert await submitted(front, "bob", "r1") is None
    await front.finish("alice=r1")
    assert {(await one.result()).text for one in waiting} == {"the giraffe"}


async def test_thousands_over_the_limit_have_one_reply_each_and_another_tenant_its_place(
    front: Front,
) -> None:
    await limited(front, requests_in_flight=1)
    assert await submitted(front, ALICE, "r1") is None

    async def told() -> bool:
        return await submitted(front, ALICE, "r2") == "overloaded"

    await eventually(told)
    # When a tenant sends thousands over its limit, as fast as can be, another one has its place
    many, inbox = 3_000, front.client.new_inbox()
    replies = await front.client.subscribe(f"{inbox}.*")
    for number in range(many):
        body = b'{"prompt": "hi", "model": "alpha"}'
        await front.client.publish(subjects.door(ALICE, subjects.SUBMIT), body, reply=f"{inbox}.{number}")
    assert await submitted(front, "bob", "r1") is None
    # Then each is refused once, in a typed reply
    came = [await replies.next_msg(DEADLINE_S) for _ in range(many)]
    assert len({reply.subject for reply in came}) == many
    assert {ErrorReply.model_validate_json(reply.data).error.code for reply in came} == {"overloaded"}
    # And a moment later it is served as ever
    await front.finish("alice=r1")

    async def let_in() -> bool:
        return await submitted(front, ALICE, "r2") is None

    await eventually(let_in)
    assert replies.pending_msgs == 0


async def test_what_is_refused_for_another_reason_counts_for_nothing(front: Front) -> None:
    await limited(front, requests_in_flight=1)
    for _ in range(3):
        error = await front.refused(subjects.door(ALICE, subjects.ASK), prompt="hi", model="nobody")
        assert error.code == "unknown_model"
    assert await submitted(front, ALICE, "r1") is None


async def test_limits_follow_the_bucket(front: Front) -> None:
    await limited(front, requests_in_flight=1)
    assert await submitted(front, ALICE, "r1") is None

    async def is_now(code: str | None, request_id: str) -> bool:
        return await submitted(front, ALICE, request_id) == code

    await eventually(lambda: is_now("overloaded", "r2"))
    await limited(front, requests_in_flight=2)
    await eventually(lambda: is_now(None, "r2"))
    await change(front.client, Tenant(name=ALICE, revoked_at_s=1.0))

    async def shut_out() -> bool:
        reply = await front.request(
            subjects.door(ALICE, subjects.SUBMIT), prompt="hi", model="alpha", request_id="r9"
        )
        return b"not_permitted" in reply.data

    await eventually(shut_out)


async def test_tokens_are_counted_when_a_result_is_stored_by_whichever_router(
    connection: Client,
) -> None:
    await change(connection, Tenant(name=ALICE, limits=Limits(tokens_per_minute=100)))
    tenants = Tenants(connection)
    await tenants.start()
    now = 1000.0
    counted = TenantLimits(tenants, "router-1", tuple, lambda: now)
    answer = Answer(
        request_id="alice=r1", agent="a", model="a", instance="i", finish_reason="stop",
        prompt_tokens=30, generated_tokens=30,
    )  # fmt: skip
    result = Result(
        request_id="alice=r1", fingerprint="f", topology="single", answers=(answer,),
        accepted_at_s=0, completed_at_s=0,
    )  # fmt: skip
    counted.on_result("alice=r1", result.to_bytes())
    counted.take("alice=r1", "interactive", 10)
    now += 20
    counted.on_result("alice=r2", result.to_bytes())
    counted.on_result("bob=r2", result.to_bytes())
    with pytest.raises(Overloaded) as refused:
        counted.take("alice=r3", "interactive", 10)
    assert refused.value.retry_after_s == pytest.approx(40)  # then the first 60 are a minute old
    counted.take("bob=r3", "interactive", 10)
    now += 40.1
    assert counted.take("alice=r3", "interactive", 10)


async def test_text_of_a_request_that_is_cancelled_before_its_end_is_counted_too(front: Front) -> None:
    await limited(front, tokens_per_minute=3)
    asking = await Stream(front).open(
        subjects.door(ALICE, subjects.STREAM_ASK), prompt="hi", model="alpha", request_id="r1", stream=True
    )
    await front.command("alice=r1")
    for index in range(5):
        await front.say("alice=r1", index, "word ")
        await asking.chunk()
    await front.request(subjects.door(ALICE, subjects.CANCEL), request_id="r1")
    error = (await asking.result()).error
    assert error is not None and error.code == "cancelled"
    assert await submitted(front, ALICE, "r2") == "overloaded"
    assert await submitted(front, "bob", "r2") is None


async def test_text_that_is_fetched_again_is_counted_once(front: Front) -> None:
    await limited(front, tokens_per_minute=8)
    asking = await Stream(front).open(
        subjects.door(ALICE, subjects.STREAM_ASK), prompt="hi", model="alpha", request_id="r1", stream=True
    )
    await front.command("alice=r1")
    for index in range(5):
        await front.say("alice=r1", index, "word ")
        await asking.chunk()
    await front.request(subjects.door(ALICE, subjects.CANCEL), request_id="r1")
    await asking.result()
    for _ in range(3):
        again = await Stream(front).open(
            subjects.door(ALICE, subjects.STREAM_FETCH), request_id="r1", stream=True
        )
        assert [(await again.chunk()).text for _ in range(5)] == ["word "] * 5
        await again.result()
    # Then five tokens are spent, not twenty: there is room for one more request
    assert await submitted(front, ALICE, "r2") is None


async def test_the_class_batch_has_a_part_of_the_queue_and_leaves_the_other_class_alone(front: Front) -> None:
    await limited(front, batch_share=2.1 / QUEUE_LENGTH)

    async def refused() -> bool:
        return await submitted(front, ALICE, "b3", "batch") == "overloaded"

    assert [await submitted(front, ALICE, f"b{n}", "batch") for n in (1, 2)] == [None, None]
    await eventually(refused)
    assert await submitted(front, ALICE, "i1") is None


class Routers:
    """Several routers that know of one another what their leases told last."""

    def __init__(self, count: int, tenants: Tenants) -> None:
        self.leases: list[NodeLease] = []
        self.all = [TenantLimits(tenants, f"router-{n}", lambda: self.leases) for n in range(count)]
        self.tell()

    def tell(self) -> None:
        self.leases = [
            NodeLease(
                service="router", instance=f"router-{n}", host="h", pid=1, version="1", state="ready",
                started_at_s=0, seen_at_s=0, tenants=one.loads,
            )
            for n, one in enumerate(self.all)
        ]  # fmt: skip


@pytest.mark.parametrize("count", [1, 2, 3, 7])
async def test_routers_never_pass_a_limit_together_and_use_it_whole(connection: Client, count: int) -> None:
    limit, chance = 10, random.Random(count)
    await change(connection, Tenant(name=ALICE, limits=Limits(requests_in_flight=limit)))
    tenants = Tenants(connection)
    await tenants.start()
    routers, most = Routers(count, tenants), 0
    open_ids: list[str] = []
    for number in range(2_000):
        router = chance.choice(routers.all)
        try:
            router.take(f"alice=r{number}", "interactive", 60)
            open_ids.append(f"alice=r{number}")
        except Overloaded:
            pass
        most = max(most, len(open_ids))
        assert len(open_ids) <= limit
        if open_ids and chance.random() < 0.2:
            ended = open_ids.pop(chance.randrange(len(open_ids)))
            for one in routers.all:
                one.on_result(ended, b"")
        if chance.random() < 0.1:
            routers.tell()
    assert most == limit
    assert sum(load.in_flight for one in routers.all for load in one.loads.values()) == len(open_ids)


async def test_who_is_refused_often_is_looked_at_no_more_until_a_second_is_over(connection: Client) -> None:
    await change(connection, Tenant(name=ALICE, limits=Limits(requests_in_flight=1)))
    now, tenants = 1000.0, Tenants(connection)
    await tenants.start()
    limits = TenantLimits(tenants, "router-1", tuple, lambda: now)
    limits.take("alice=r1", "interactive", 60)
    for number in range(LOOKED_AT_A_SECOND):
        assert limits.most_open(ALICE) == 2 + OPEN_BESIDES
        with pytest.raises(Overloaded):
            limits.take(f"alice=further{number}", "interactive", 60)
        now += LOOK_S / 2 / LOOKED_AT_A_SECOND
    assert limits.most_open(ALICE) == 0
    assert limits.most_open("bob") is None
    now += LOOK_S / 2
    assert limits.most_open(ALICE) == 2 + OPEN_BESIDES
    with pytest.raises(Overloaded):
        limits.take("alice=more", "interactive", 60)
    assert limits.most_open(ALICE) == 2 + OPEN_BESIDES


async def test_a_tenant_without_a_limit_leaves_room_in_the_queue_for_others(
    connection: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "QUEUE_LENGTH", 80)
    monkeypatch.setattr(module, "LITTLE", 0)
    tenants = Tenants(connection)
    limits = TenantLimits(tenants, "router-1", tuple)
    for number in range(70):
        limits.take(f"alice=r{number}", "interactive", 60)
    with pytest.raises(Overloaded, match="the rest of it is for others"):
        limits.take("alice=more", "interactive", 60)
    assert limits.take("bob=r1", "interactive", 60)
    limits.on_result("alice=r1", b"")
    assert limits.take("alice=more", "interactive", 60)


async def test_a_tenant_fills_the_queue_with_no_long_requests_either(
    connection: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "QUEUE_BYTES", 8_000)
    limits = TenantLimits(Tenants(connection), "router-1", tuple)
    for number in range(8):
        limits.take(f"alice=r{number}", "interactive", 60)
    for number in range(7):
        limits.weigh(f"alice=r{number}", 1_000)
    with pytest.raises(Overloaded, match="the rest of it is for others"):
        limits.weigh("alice=r7", 1_000)
    limits.weigh("alice=r6", 1_000)  # the same request is the same request
    limits.take("bob=r1", "interactive", 60)
    limits.weigh("bob=r1", 500)
    limits.on_result("alice=r1", b"")
    limits.weigh("alice=r7", 400)


async def test_a_request_whose_result_was_never_heard_of_is_forgotten(connection: Client) -> None:
    now, tenants = 1000.0, Tenants(connection)
    counted = TenantLimits(tenants, "router-1", tuple, lambda: now)
    counted.take("alice=r1", "interactive", 5)
    assert counted.loads == {ALICE: TenantLoad(in_flight=1)}
    now += 5 + module.OVERDUE_S - 1
    counted.forget_overdue()
    assert counted.loads != {}
    now += 2
    counted.forget_overdue()
    assert counted.loads == {}


async def test_a_tenant_that_is_revoked_is_let_in_no_more(connection: Client) -> None:
    await change(connection, Tenant(name=ALICE, expires_at_s=1.0))
    tenants = Tenants(connection)
    await tenants.start()
    with pytest.raises(NotPermitted, match="alice is let in no more"):
        TenantLimits(tenants, "router-1", tuple).take("alice=r1", "interactive", 5)


async def test_a_revoked_tenant_fetches_cancels_and_looks_no_more_while_its_connection_lasts(
    front: Front,
) -> None:
    await change(front.client, Tenant(name=ALICE, role="operate"))
    assert await submitted(front, ALICE, "r1") is None
    await front.finish("alice=r1")
    await change(front.client, Tenant(name=ALICE, role="operate", revoked_at_s=1.0))
    asked: dict[str, dict[str, object]] = {
        subjects.FETCH: {"request_id": "r1"}, subjects.CANCEL: {"request_id": "r1"}, subjects.MODELS: {},
        subjects.NODES: {}, subjects.STATUS: {}, subjects.WORKER: {}, subjects.KEYS: {}, subjects.CORDON: {},
        subjects.DEAD_LETTERS: {}, subjects.TOKENIZE: {"model": "alpha", "text": "hi"},
    }  # fmt: skip

    async def refused() -> bool:
        reply = await front.request(subjects.door(ALICE, subjects.FETCH), request_id="r1")
        return subjects.ERROR_CODE_HEADER in (reply.headers or {})

    await eventually(refused)
    for subject, fields in asked.items():
        error = await front.refused(subjects.door(ALICE, subject), **fields)
        assert (subject, error.code) == (subject, "not_permitted")


async def test_a_router_that_begins_alone_counts_what_an_earlier_one_had_let_in(
    connection: Client, mesh_url: str
) -> None:
    async with open_front(connection, mesh_url) as front:
        await limited(front, requests_in_flight=2)
        for number in (1, 2):
            assert await submitted(front, ALICE, f"r{number}") is None
    # When that router is gone, and another one begins, it lets in no third one before one has ended
    async with open_front(connection, mesh_url) as front:
        assert await submitted(front, ALICE, "r3") == "overloaded"
        await front.finish("alice=r1")

        async def let_in() -> bool:
            return await submitted(front, ALICE, "r3") is None

        await eventually(let_in)


def test_a_request_that_ended_while_it_was_let_in_once_more_has_its_place_in_the_queue() -> None:
    tenants = cast(
        Tenants,
        SimpleNamespace(known=(Tenant(name="alice"),), find=lambda _name: None, check=lambda _name: None),
    )
    limits = TenantLimits(tenants, "router-1", tuple)
    mesh, directory = SimpleNamespace(client=None), SimpleNamespace(serving=dict)
    fair_queue = FairQueue(cast(ServiceContext, mesh), tenants, limits, cast(Directory, directory), tuple)
    request_id = subjects.owned_id("alice", "r1")
    queue = subjects.generate("batch", "alpha", request_id)
    limits.take(request_id, "batch", 60.0)
    limits.give_back(request_id)
    assert fair_queue.place(queue, request_id, "batch") == queue
