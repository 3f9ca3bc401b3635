"""Equal requests that allow it share one result."""

from __future__ import annotations

import asyncio
import time
from typing import Any

from nats.aio.client import Client

from infra.testing.mesh import eventually
from schemas import subjects
from schemas.commands import Ask
from schemas.errors import GenerationFailed
from schemas.events import RequestShared
from schemas.replies import Cancelled, Result
from schemas.requests.cache import CacheEntry
from services.chassis.nats.bucket import Bucket, messages
from services.router.admission.equal_requests import said_by
from services.router.queued import parse_command, queued_message
from services.router.tests.front import Front, Stream, open_front

ASKED = {"prompt": "hi", "model": "alpha", "cache": True}


def asking(front: Front, request_id: str, **fields: Any) -> asyncio.Task[Result]:
    return asyncio.create_task(front.ask(**{**ASKED, "request_id": request_id, **fields}))


async def follows(front: Front, request_id: str) -> None:
    """Returns when a request waits for another one: it can be cancelled, and has no command."""

    async def known() -> bool:
        reply = await front.request(subjects.FETCH, request_id=request_id)
        return b"not_ready" in reply.data

    await eventually(known)


async def fail(front: Front, request_id: str) -> None:
    """Does what an agent does whose model breaks."""
    queued = await queued_message(front.mesh.storage, request_id)
    assert queued is not None
    error = GenerationFailed("the model broke")
    result = Result.failed(parse_command(queued.data), error, time.time())
    await front.mesh.storage.store_once(subjects.result(request_id), result.to_bytes())


async def test_an_equal_request_is_answered_from_the_cache_under_its_own_id(front: Front) -> None:
    first = asking(front, "r1")
    await front.finish("r1")
    assert ((await first).cache, (await first).cached_from) == ("miss", None)
    second = await asking(front, "r2", timeout_s=30)
    assert (second.request_id, second.text) == ("r2", "the giraffe")
    assert (second.cache, second.cached_from) == ("hit", "r1")
    assert await front.stored() == 1


async def test_the_result_of_an_equal_request_is_stored_under_the_id_of_whoever_got_it(front: Front) -> None:
    first = asking(front, "r1")
    await front.finish("r1", chunks=2)
    await first
    second = await asking(front, "r2")

    async def kept() -> bool:
        return await front.mesh.storage.last(subjects.RESULTS_STREAM, subjects.result("r2")) is not None

    await eventually(kept)
    await front.exchange("other weights")
    again = await Stream(front).open(
        subjects.STREAM_ASK, **{**ASKED, "stream": True, "request_id": "r2", "cache": False}
    )
    assert await again.result() == second, "it is the same request, and has its result"
    fetched = await front.request(subjects.FETCH, request_id="r2")
    assert Result.model_validate_json(fetched.data) == second

    async def event() -> bytes | None:
        await front.mesh.events.flush()
        subject = subjects.event("router", "request_shared")
        stored = await front.mesh.storage.last(subjects.EVENTS_STREAM, subject)
        return None if stored is None else stored.data

    told = RequestShared.model_validate_json(await eventually(event))
    assert (told.request_id, told.cached_from, told.cache) == ("r2", "r1", "hit")


async def test_a_model_that_was_exchanged_under_its_name_answers_itself(front: Front) -> None:
    first = asking(front, "r1")
    await front.finish("r1")
    await first
    await front.exchange("other weights")
    second = asking(front, "r2")
    await front.finish("r2", "the zebra")
    assert ((await second).cache, (await second).text) == ("miss", "the zebra")


async def test_who_does_not_ask_for_it_gets_nothing_from_the_cache(front: Front) -> None:
    for request_id, wanted in (("r1", True), ("r2", False)):
        one = asking(front, request_id, cache=wanted)
        await front.finish(request_id)
        assert (await one).cached_from is None
    assert (await front.stored(), (await asking(front, "r2", cache=False)).cache) == (2, None)


async def test_equal_requests_in_work_are_one(front: Front) -> None:
    leader = asking(front, "r1")
    await front.command("r1")
    followers = [asking(front, f"r{number}") for number in (2, 3)]
    for number in (2, 3):
        await follows(front, f"r{number}")
    await front.finish("r1")
    assert (await leader).cache == "miss"
    for number, follower in zip((2, 3), followers, strict=True):
        result = await follower
        assert (result.request_id, result.text) == (f"r{number}", "the giraffe")
        assert (result.cache, result.cached_from) == ("shared", "r1")
    assert await front.stored() == 1


async def test_who_comes_back_to_its_id_waits_for_none_in_work_and_finds_its_result_there(
    front: Front,
) -> None:
    leader = asking(front, "r1")
    await front.command("r1")
    own = asking(front, "r2", cache_settled=True)
    await front.finish("r2", "the zebra")
    assert ((await own).cache, (await own).text) == ("miss", "the zebra")
    await front.finish("r1")
    await leader
    hit = await asking(front, "r3", cache_settled=True)
    assert (hit.cache, hit.cached_from, hit.text) == ("hit", "r1", "the giraffe")
    stored = await front.mesh.storage.last(subjects.RESULTS_STREAM, subjects.result("r3"))
    assert stored is not None and Result.read(stored.data) == hit, "before the reply, not after it"


async def test_another_question_and_another_tenant_get_answers_of_their_own(front: Front) -> None:
    first = asking(front, "r1")
    await front.finish("r1")
    await first
    other = asking(front, "r2", prompt="hello")
    await front.finish("r2", "the zebra")
    assert ((await other).cache, (await other).text) == ("miss", "the zebra")
    fields = {**ASKED, "request_id": "r1"}
    alice = asyncio.create_task(front.request(subjects.door("alice", subjects.ASK), **fields))
    await front.finish("alice=r1", "hers")
    hers = Result.model_validate_json((await alice).data)
    assert (hers.cache, hers.text) == ("miss", "hers")


async def test_a_leader_that_fails_is_replaced_by_one_who_waits(front: Front) -> None:
    leader = asking(front, "r1")
    await front.command("r1")
    followers = {f"r{number}": asking(front, f"r{number}") for number in (2, 3)}
    for request_id in followers:
        await follows(front, request_id)
    await fail(front, "r1")
    assert (await leader).error is not None

    async def taken_over() -> str | None:
        for request_id in followers:
            if await queued_message(front.mesh.storage, request_id) is not None:
                return request_id
        return None

    new = await eventually(taken_over)
    await front.finish(new)
    results = {request_id: await follower for request_id, follower in followers.items()}
    assert [result.text for result in results.values()] == ["the giraffe"] * 2
    assert results.pop(new).cache == "miss"
    assert [(result.cache, result.cached_from) for result in results.values()] == [("shared", new)]
    assert await front.stored() == 2


async def test_a_cancelled_leader_does_not_cancel_its_followers(front: Front) -> None:
    leader = asking(front, "r1")
    await front.command("r1")
    follower = asking(front, "r2")
    await follows(front, "r2")
    await front.request(subjects.CANCEL, request_id="r1")
    assert (await leader).error is not None
    await front.finish("r2")
    assert ((await follower).cache, (await follower).text) == ("miss", "the giraffe")


async def test_a_follower_that_is_cancelled_leaves_its_leader_alone(front: Front) -> None:
    leader = asking(front, "r1")
    await front.command("r1")
    follower = asyncio.create_task(front.refused(subjects.ASK, **ASKED, request_id="r2"))
    await follows(front, "r2")
    reply = await front.request(subjects.CANCEL, request_id="r2")
    assert Cancelled.model_validate_json(reply.data).cancelled
    assert (await follower).code == "cancelled"
    await front.finish("r1")
    assert (await leader).text == "the giraffe"


async def test_a_leader_that_was_lost_before_it_was_stored_is_replaced(front: Front) -> None:
    said = Ask.model_validate(ASKED).fingerprint
    bucket = Bucket(front.client, subjects.CACHE_BUCKET, messages(CacheEntry))
    await bucket.put(
        subjects.cache_key(subjects.LOCAL_TENANT, said_by(said, ["alpha first weights"])),
        CacheEntry(request_id="lost", at_s=time.time()),
    )
    follower = asking(front, "r2")
    await front.finish("r2")
    assert ((await follower).cache, (await follower).text) == ("miss", "the giraffe")


async def test_a_follower_has_the_text_as_it_comes_under_its_own_id(front: Front) -> None:
    fields = {**ASKED, "stream": True}
    leader = await Stream(front).open(subjects.STREAM_ASK, **fields, request_id="r1")
    await front.command("r1")
    await front.say("r1", 0, "the ")
    assert (await leader.chunk()).text == "the "
    follower = await Stream(front).open(subjects.STREAM_ASK, **fields, request_id="r2")
    first = await follower.chunk()
    await front.say("r1", 1, "giraffe", done=True)
    second = await follower.chunk()
    assert [(chunk.request_id, chunk.text) for chunk in (first, second)] == [
        ("r2", "the "),
        ("r2", "giraffe"),
    ]
    await front.finish("r1", chunks=2)
    result = await follower.result()
    assert (result.request_id, result.cache, result.cached_from) == ("r2", "shared", "r1")


async def test_what_is_too_old_is_asked_anew(connection: Client, mesh_url: str) -> None:
    async with open_front(connection, mesh_url, cache_keep_s=0.05) as front:
        for request_id in ("r1", "r2"):
            one = asking(front, request_id)
            await front.finish(request_id)
            assert (await one).cache == "miss"
            await asyncio.sleep(0.06)
    async with open_front(connection, mesh_url, cache_keep_s=0) as front:
        one = asking(front, "r3")
        await front.finish("r3")
        assert (await one).cache is None
