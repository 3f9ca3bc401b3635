"""A request that says that its id is new: nobody looks for an earlier one."""

from __future__ import annotations

import asyncio
import json

from nats.aio.msg import Msg

from infra.testing.mesh import DEADLINE_S
from schemas import subjects
from schemas.replies import Result
from services.router.tests.front import Front

NEW = {subjects.NEW_HEADER: "1"}
ASKED = {"prompt": "hi", "model": "alpha"}


async def ask(front: Front, request_id: str, headers: dict[str, str] | None) -> Result:
    payload = json.dumps({**ASKED, "request_id": request_id}).encode()
    reply = await front.client.request(subjects.ASK, payload, timeout=DEADLINE_S, headers=headers)
    return Result.model_validate_json(reply.data)


async def test_what_is_new_is_not_looked_for_among_the_results(front: Front) -> None:
    looked_for: list[str] = []

    async def seen(msg: Msg) -> None:
        looked_for.append(json.loads(msg.data)["last_by_subj"])

    await front.mesh.client.subscribe(subjects.direct_get(subjects.RESULTS_STREAM), cb=seen)
    for request_id, headers in (("new1", NEW), ("old1", None)):
        asking = asyncio.create_task(ask(front, request_id, headers))
        await front.finish(request_id)
        assert (await asking).request_id == request_id
    assert looked_for == [subjects.result("old1")]


async def test_who_calls_an_old_id_new_gets_the_result_that_there_is(front: Front) -> None:
    asking = asyncio.create_task(ask(front, "r1", NEW))
    await front.finish("r1", "the giraffe")
    first = await asking
    assert await ask(front, "r1", NEW) == first
    assert await front.stored() == 1
