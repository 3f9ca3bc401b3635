"""Tenants share a queue by their weights, and many requests of one do not hold up the one of another."""

from __future__ import annotations

import asyncio
import itertools
from collections import Counter
from typing import Any

import nats
import pytest

from infra.testing.mesh import eventually, open_mesh
from schemas import subjects
from schemas.commands import Generate
from schemas.replies import Cancelled, Result
from schemas.requests.tenants import Tenant
from services.chassis.work.delivery import Delivery
from services.chassis.work.tests.test_loop import CommandHandler, working
from services.router.service import Router
from services.router.settings import RouterSection
from services.router.tenancy.fair_queue import LEAST_WINDOW
from services.router.tests.front import Front
from services.router.tests.tenancy.test_tenant_limits import change

SLOTS = 2
ASKED = {"prompt": "hi", "model": "alpha", "priority": "batch"}


async def submit(front: Front, tenant: str, *numbers: int, **fields: Any) -> None:
    """Batch work, in order."""
    for number in numbers:
        reply = await front.request(
            subjects.door(tenant, subjects.SUBMIT), **{**ASKED, "request_id": f"r{number}", **fields}
        )
        assert subjects.ERROR_CODE_HEADER not in (reply.headers or {}), reply.data


async def held(front: Front) -> int:
    """How many commands are held."""
    js = front.client.jetstream()
    info = await js.stream_info(subjects.COMMANDS_STREAM, subjects_filter=subjects.all_held())
    return len(info.state.subjects or {})


async def known(front: Front, **weights: float) -> None:
    """Returns when the router knows the tenants: it holds what one asks for beyond its part."""
    for name, weight in weights.items():
        await change(front.client, Tenant(name=name, weight=weight))

    numbers = itertools.count()

    async def knows() -> bool:
        await submit(front, "nobody", *itertools.islice(numbers, 2 * LEAST_WINDOW))
        return await held(front) > 0

    await eventually(knows)


def worker(front: Front) -> CommandHandler:
    """Somebody who does the work, a moment each."""

    async def do(command: Generate, _delivery: Delivery) -> None:
        await asyncio.sleep(0.002)
        result = Result(
            request_id=command.request_id, fingerprint=command.fingerprint, topology="single", text="done",
            accepted_at_s=command.accepted_at_s, completed_at_s=command.accepted_at_s,
        )  # fmt: skip
        await front.mesh.storage.store_once(subjects.result(command.request_id), result.to_bytes())

    return CommandHandler(do)


async def empty(front: Front) -> bool:
    info = await front.client.jetstream().stream_info(subjects.COMMANDS_STREAM)
    return info.state.messages == 0


@pytest.mark.parametrize("weight", [1, 3])
@pytest.mark.soak
async def test_tenants_who_always_have_work_share_it_by_their_weights(front: Front, weight: int) -> None:
    await known(front, alice=weight, bob=1)
    handler = worker(front)
    async with working(front.mesh, handler, SLOTS):
        await eventually(lambda: empty(front))
    handler.handled.clear()
    await asyncio.gather(submit(front, "alice", *range(80)), submit(front, "bob", *range(80)))
    async with working(front.mesh, handler, SLOTS):
        await eventually(lambda: empty(front))
    owners = [subjects.owner_of(request_id) for request_id in handler.handled]
    assert Counter(owners) == {"alice": 80, "bob": 80}
    both = owners[2 * LEAST_WINDOW : 96]  # from when both windows were filled, until one has nothing left
    share = Counter(both)["alice"] / len(both)
    assert share == pytest.approx(weight / (weight + 1), rel=0.15)


async def test_many_requests_of_one_do_not_hold_up_the_one_of_another(front: Front) -> None:
    await known(front, alice=1, bob=1)
    await submit(front, "alice", *range(100))
    await submit(front, "bob", 1)
    handler = worker(front)
    async with working(front.mesh, handler, SLOTS):
        await eventually(lambda: empty(front))
    assert handler.handled.index("bob=r1") < 4 * LEAST_WINDOW  # those of `nobody` are before it as well
    alices = [one for one in handler.handled if one.startswith("alice=")]
    assert alices == [f"alice=r{number}" for number in range(100)]


async def test_what_is_held_is_a_request_like_any_other(front: Front) -> None:
    await known(front, alice=1)
    await submit(front, "alice", *range(3 * LEAST_WINDOW))
    last = {"request_id": f"r{3 * LEAST_WINDOW - 1}"}
    await submit(front, "alice", 3 * LEAST_WINDOW - 1)  # the same request again
    assert (await front.refused(subjects.door("alice", subjects.FETCH), **last)).code == "not_ready"
    assert (await front.refused(subjects.door("bob", subjects.FETCH), **last)).code == "unknown_request"
    reply = await front.request(subjects.door("alice", subjects.CANCEL), **last)
    assert Cancelled.model_validate_json(reply.data).cancelled
    other = await front.refused(
        subjects.door("alice", subjects.SUBMIT), **ASKED | {"prompt": "ho", "request_id": "r1"}
    )
    assert other.code == "request_id_conflict"


async def test_a_request_that_has_moved_into_its_queue_is_still_the_same_request(front: Front) -> None:
    await known(front, alice=1)
    handler = worker(front)
    async with working(front.mesh, handler, SLOTS):
        await eventually(lambda: empty(front))
    await submit(front, "alice", *range(LEAST_WINDOW))

    async def moved() -> bool:
        return await held(front) == 0

    await eventually(moved)
    await submit(front, "alice", *range(LEAST_WINDOW))
    assert not await empty(front) and await held(front) == 0


async def test_two_routers_that_both_move_what_is_held_have_nothing_done_twice(
    front: Front, mesh_url: str
) -> None:
    """Neither of them has a lease here, so each takes itself for the only one."""
    connection = await nats.connect(mesh_url)
    other = Router(RouterSection())
    await other.start(open_mesh(connection, "router", "router-2"))
    await known(front, alice=1, bob=2)
    handler = worker(front)
    async with working(front.mesh, handler, SLOTS):
        await asyncio.gather(submit(front, "alice", *range(50)), submit(front, "bob", *range(50)))
        await eventually(lambda: empty(front))
    done = Counter(one for one in handler.handled if subjects.owner_of(one) != "nobody")
    assert done.keys() == {f"{tenant}=r{n}" for tenant in ("alice", "bob") for n in range(50)}
    assert set(done.values()) == {1}
    await other.stop()
    await connection.close()


async def test_one_tenant_alone_has_nothing_held(front: Front) -> None:
    await submit(front, subjects.LOCAL_TENANT, *range(3 * LEAST_WINDOW))
    assert await held(front) == 0
