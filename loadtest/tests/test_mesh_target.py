"""The mesh as a target: a request is asked again as long as its client would wait."""

from __future__ import annotations

import asyncio
import json

from nats.aio.client import Client
from nats.aio.msg import Msg

from infra.testing.mesh import eventually
from loadtest.generate.generator import Generator
from loadtest.generate.request_record import OK, RequestRecord
from loadtest.targets.mesh_target import NOBODY, MeshTarget
from schemas import subjects
from schemas.errors import UnknownRequest
from schemas.replies import ErrorReply, Result


async def flown(target: MeshTarget, timeout_s: float) -> RequestRecord:
    """A request that has been sent."""
    generator = Generator(target, timeout_s)
    await generator.open()
    generator.start()
    record = RequestRecord(1, "single", 0.0, sent_s=generator.clock())
    await target.send(record, {"prompt": "hi", "model": "alpha", "timeout_s": timeout_s})
    return record


async def test_a_request_outlives_a_router_that_is_away_for_long(mesh_url: str, connection: Client) -> None:
    # Given a request with a minute's patience, and for five seconds no router
    target = MeshTarget(mesh_url, "run")
    record = await flown(target, 60)
    await asyncio.sleep(5)
    assert record.open
    # When there is one again
    asked: list[float] = []

    async def answer(msg: Msg) -> None:
        ask = json.loads(msg.data)
        asked.append(ask["timeout_s"])
        result = Result(
            request_id=ask["request_id"],
            fingerprint="",
            topology="single",
            text="Paris",
            accepted_at_s=1.0,
            completed_at_s=2.0,
        )
        headers = {subjects.KIND_HEADER: "result"}
        await connection.publish(msg.reply, result.to_bytes(), headers=headers)

    await connection.subscribe(subjects.doors(subjects.ASK), cb=answer)
    # Then it is answered, and asked for no more time than its client has left
    await eventually(lambda: not record.open)
    assert (record.error, record.results) == (OK, 1)
    assert asked[0] <= 55.1
    await target.close()


async def test_a_request_that_no_router_took_in_its_time_says_so(mesh_url: str) -> None:
    target = MeshTarget(mesh_url, "run")
    record = await flown(target, 1)
    await eventually(lambda: not record.open)
    assert record.error == NOBODY
    assert record.done_s >= 1.0
    await target.close()


async def test_a_request_whose_router_died_with_it_is_asked_again(mesh_url: str, connection: Client) -> None:
    # Given a router that takes a request and dies, and another one that knows nothing of it
    asked: list[str] = []

    async def take(msg: Msg) -> None:
        asked.append(json.loads(msg.data)["request_id"])
        if len(asked) > 1:
            result = Result(
                request_id=asked[-1],
                fingerprint="",
                topology="single",
                text="Paris",
                accepted_at_s=1.0,
                completed_at_s=2.0,
            )
            headers = {subjects.KIND_HEADER: "result"}
            await connection.publish(msg.reply, result.to_bytes(), headers=headers)

    async def know_nothing(msg: Msg) -> None:
        error = UnknownRequest("nobody knows it").body(json.loads(msg.data)["request_id"])
        reply = ErrorReply(error=error)
        await connection.publish(msg.reply, reply.to_bytes(), headers={subjects.KIND_HEADER: "error"})

    await connection.subscribe(subjects.doors(subjects.ASK), cb=take)
    await connection.subscribe(subjects.doors(subjects.FETCH), cb=know_nothing)
    target = MeshTarget(mesh_url, "run")
    # When nothing is heard of it, then it is asked again under its id, and answered
    record = await flown(target, 60)
    await eventually(lambda: not record.open, 180)
    assert (record.error, record.results, record.fetched) == (OK, 1, True)
    assert asked == ["run-1", "run-1"]
    await target.close()
