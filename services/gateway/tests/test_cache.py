"""Equal requests whose answer is the same each time: generated once, whichever gateway they came to."""

from __future__ import annotations

import asyncio
import json
import time
import tracemalloc
import uuid
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import Any

import httpx
import pytest
import pytest_asyncio
from nats.aio.client import Client

from infra.testing.choir_up import connect_inside
from schemas import subjects
from schemas.commands import Ask, Embed
from schemas.errors import Cancelled
from schemas.replies import Answer, Result
from schemas.requests.sampling import Sampling
from services.chassis.nats.streams import Storage
from services.client.client import Choir
from services.gateway.requests.identity import ID_HEADER, KEY_HEADER, id_of_key, seed_of
from services.gateway.requests.kept import ENTRY_BYTES, Kept
from services.gateway.requests.result_cache import ResultCache, same_each_time
from services.gateway.tests.serving import accepted, serving

WAIT_S = 180.0
CHAT, RESPONSES = "/v1/chat/completions", "/v1/responses"


def question(model: str = "choir-one", **fields: Any) -> dict[str, Any]:
    """A question that nobody has asked before."""
    said = [{"role": "user", "content": f"What is {uuid.uuid4()}?"}]
    return {"model": model, "messages": said, "temperature": 0, **fields}


def told(reply: httpx.Response) -> tuple[str | None, str | None]:
    return reply.headers.get("choir-cache"), reply.headers.get("choir-cached-from")


@asynccontextmanager
async def gateways(mesh_url: str, **settings: Any) -> AsyncIterator[tuple[httpx.AsyncClient, ...]]:
    """Clients of two gateways."""
    async with (
        serving(mesh_url, **settings) as one,
        serving(mesh_url, **settings) as two,
        httpx.AsyncClient(base_url=one, timeout=WAIT_S) as first,
        httpx.AsyncClient(base_url=two, timeout=WAIT_S) as second,
    ):
        yield first, second


@pytest_asyncio.fixture
async def two(live_mesh: str) -> AsyncIterator[tuple[httpx.AsyncClient, ...]]:
    async with gateways(live_mesh) as clients:
        yield clients


@pytest.fixture
def body() -> Iterator[dict[str, Any]]:
    yield question()


async def test_an_equal_request_is_a_hit_here_and_at_another_gateway(
    two: tuple[httpx.AsyncClient, ...], body: dict[str, Any]
) -> None:
    first = await two[0].post(CHAT, json=body)
    again = [await client.post(CHAT, json=body) for client in (two[0], two[1], two[1])]
    assert told(first) == ("miss", None)
    for reply in again:
        assert told(reply) == ("hit", first.headers[ID_HEADER])
        assert reply.json()["choices"] == first.json()["choices"]
    assert len({reply.headers[ID_HEADER] for reply in (first, *again)}) == 4


async def test_a_reply_that_is_ready_is_the_same_under_an_id_of_its_own_to_whoever_wants_it(
    two: tuple[httpx.AsyncClient, ...], body: dict[str, Any]
) -> None:
    first = await two[0].post(CHAT, json=body)
    replies = [await two[0].post(CHAT, json=body) for _ in range(3)]
    for reply in replies:
        assert told(reply) == ("hit", first.headers[ID_HEADER])
        assert reply.json() == first.json() | {"id": f"chatcmpl-{reply.headers[ID_HEADER]}"}
    keyed = await two[0].post(CHAT, json=body, headers={KEY_HEADER: body["messages"][0]["content"]})
    assert keyed.headers[ID_HEADER].startswith("key-")
    assert told(await two[0].post(CHAT, json=body, headers={"choir-cache": "off"})) == ("off", None)
    assert told(await two[0].post(CHAT, json=body | {"max_tokens": 3}))[0] == "miss"
    assert len({reply.headers[ID_HEADER] for reply in replies}) == 3


async def test_what_was_answered_from_memory_is_found_by_its_id_and_is_a_row(
    two: tuple[httpx.AsyncClient, ...], live_mesh: str, body: dict[str, Any]
) -> None:
    ids = [(await client.post(CHAT, json=body)).headers[ID_HEADER] for client in (two[0], two[0], two[1])]
    rows = "SELECT status, cached_from, generated_tokens FROM requests WHERE request_id = $id::VARCHAR"
    async with Choir(live_mesh) as mesh, asyncio.timeout(WAIT_S):
        for request_id in ids[1:]:
            while not (found := (await mesh.sql(rows, {"id": request_id})).rows):  # noqa: ASYNC110
                await asyncio.sleep(0.05)
            assert [list(row) for row in found] == [["answered", ids[0], 0]]
    for request_id in ids[1:]:
        reply = await two[1].get(f"/api/distributed/requests/{request_id}")
        assert reply.json()["request_id"] == request_id
        assert reply.json()["cached_from"] == ids[0]


async def test_a_seed_is_enough_and_without_one_each_request_has_an_answer_of_its_own(
    two: tuple[httpx.AsyncClient, ...],
) -> None:
    seeded = question(temperature=1.0, seed=7)
    assert [told(await two[0].post(CHAT, json=seeded))[0] for _ in range(2)] == ["miss", "hit"]
    drawn = question(temperature=1.0)
    assert [told(await two[0].post(CHAT, json=drawn))[0] for _ in range(2)] == ["off", "off"]


@pytest.mark.parametrize("header", [{"choir-cache": "off"}, {"cache-control": "no-store"}])
async def test_a_request_that_wants_nothing_from_the_cache_gets_nothing(
    two: tuple[httpx.AsyncClient, ...], body: dict[str, Any], header: dict[str, str]
) -> None:
    await two[0].post(CHAT, json=body)
    reply = await two[0].post(CHAT, json=body, headers=header)
    assert told(reply) == ("off", None)


async def test_a_gateway_may_have_no_cache(live_mesh: str, body: dict[str, Any]) -> None:
    async with gateways(live_mesh, cache=False) as (client, _):
        assert [told(await client.post(CHAT, json=body))[0] for _ in range(2)] == ["off", "off"]


@pytest.mark.parametrize("path", ["/api/chat", "/api/generate", "/v1/completions", "/v1/messages", CHAT])
async def test_every_dialect_has_the_cache(two: tuple[httpx.AsyncClient, ...], path: str) -> None:
    asked = question(max_tokens=16, stream=False, options={"temperature": 0})
    if path in ("/api/generate", "/v1/completions"):
        asked["prompt"] = asked.pop("messages")[0]["content"]
    assert [told(await two[0].post(path, json=asked))[0] for _ in range(2)] == ["miss", "hit"]


async def test_a_stream_from_the_cache_is_a_stream_with_the_same_text(
    two: tuple[httpx.AsyncClient, ...],
) -> None:
    body = question(model="choir-short", stream=True)
    streams = [await streamed(client, body) for client in (two[0], two[0], two[1])]
    assert [use for use, _ in streams] == ["miss", "hit", "hit"]
    texts = {text for _, text in streams}
    assert len(texts) == 1
    assert all(texts)


async def test_a_response_from_the_cache_is_one_of_its_own_that_clients_come_back_to(
    two: tuple[httpx.AsyncClient, ...],
) -> None:
    asked: dict[str, Any] = {"model": "choir-four", "input": f"What is {uuid.uuid4()}?", "temperature": 0}
    first = await two[0].post(RESPONSES, json=asked)
    assert (first.status_code, told(first)) == (200, ("miss", None))
    for client, other in (two, two[::-1]):
        # Given a hit, any gateway has the response at once
        reply = await client.post(RESPONSES, json=asked)
        assert told(reply) == ("hit", first.headers[ID_HEADER])
        made, path = reply.json(), f"{RESPONSES}/{reply.json()['id']}"
        assert made["id"] != first.json()["id"] and made["completed_at"] >= made["created_at"]
        assert said(made) == said(first.json()) != ""
        assert (await other.get(path)).json() == made
        # And it can be heard as a stream, and gone on from
        events = await events_in(other, "GET", f"{path}?stream=true")
        assert [event["sequence_number"] for event in events] == list(range(len(events)))
        assert said(events[-1]["response"]) == said(made)
        goes_on = asked | {"input": "Why?", "previous_response_id": made["id"]}
        assert (await other.post(RESPONSES, json=goes_on)).status_code == 200
    # A stream is one too; and what is not kept may be answered from a gateway's memory
    for way in ({"stream": True}, {"store": False}, {"stream": True, "store": False}):
        reply = await two[0].post(RESPONSES, json=asked | way)
        assert told(reply)[0] == "hit", way
    # Who wants none gets none, nor what goes on in the background, nor what is drawn
    for body, headers in (
        (asked, {"choir-cache": "off"}),
        (asked | {"background": True}, {}),
        (asked | {"temperature": 1.0}, {}),
    ):
        reply = await two[0].post(RESPONSES, json=body, headers=headers)
        assert reply.status_code == 200
        assert reply.headers.get("choir-cache", "off") == "off", body


def said(response: dict[str, Any]) -> str:
    """The text of a response."""
    parts = (part for item in response["output"] for part in item.get("content", ()))
    return "".join(part["text"] for part in parts)


async def events_in(client: httpx.AsyncClient, method: str, path: str) -> list[dict[str, Any]]:
    """The events of a stream."""
    async with client.stream(method, path) as reply:
        lines = [line async for line in reply.aiter_lines()]
    return [json.loads(line.removeprefix("data: ")) for line in lines if line.startswith("data: {")]


async def streamed(client: httpx.AsyncClient, body: dict[str, Any]) -> tuple[str | None, str]:
    """What a stream says of the cache, and its text; it ends as a stream does."""
    pieces, last = [], ""
    async with client.stream("POST", CHAT, json=body) as reply:
        async for line in reply.aiter_lines():
            if line.startswith("data: {"):
                choices = json.loads(line.removeprefix("data: "))["choices"]
                pieces.append(choices[0]["delta"].get("content") or "" if choices else "")
            last = line or last
    assert last == "data: [DONE]"
    return reply.headers.get("choir-cache"), "".join(pieces)


async def test_equal_requests_at_two_gateways_are_one_and_go_on_when_the_first_client_hangs_up(
    two: tuple[httpx.AsyncClient, ...], live_mesh: str
) -> None:
    body, connection = question(model="choir-slow"), await connect_inside(live_mesh)
    keys = [f"{who}-{uuid.uuid4()}" for who in ("leader", "follower")]
    ids = [id_of_key(key, CHAT, "") for key in keys]
    asking = []
    async with Choir(live_mesh) as mesh:
        for client, key, request_id in zip(two, keys, ids, strict=True):
            asking.append(asyncio.create_task(client.post(CHAT, json=body, headers={KEY_HEADER: key})))
            await accepted(mesh, request_id)
        assert await in_the_queue(connection, ids[0])
        assert not await in_the_queue(connection, ids[1]), "the second waits for the first"
        asking[0].cancel()
        with pytest.raises(Cancelled):
            await mesh.fetch(ids[0], wait_s=WAIT_S)
        async with asyncio.timeout(WAIT_S):
            while not await in_the_queue(connection, ids[1]):  # noqa: ASYNC110  (the broker is asked)
                await asyncio.sleep(0.02)
        assert not asking[1].done()
        assert await mesh.cancel(ids[1])
        assert (await asking[1]).status_code == 499
    await connection.close()


async def in_the_queue(connection: Client, request_id: str) -> bool:
    storage = Storage(connection)
    found = [
        await storage.last(subjects.COMMANDS_STREAM, place) for place in subjects.commands_of(request_id)
    ]
    return any(found)


ASK = Ask(request_id="r1", prompt="Where?", model="m", sampling=Sampling(seed=3))


def result(text: str) -> Result:
    answer = Answer(request_id="r0", agent="m", model="m", instance="i", text=text, finish_reason="stop")
    return Result(
        request_id="r0", fingerprint=ASK.fingerprint, topology="single", text=text, answers=(answer,),
        accepted_at_s=1.0, completed_at_s=2.0,
    )  # fmt: skip


def cache_of(
    room: int = 1024 * 1024, keep_s: float = 300.0, now: Any = time.monotonic
) -> tuple[ResultCache, Kept]:
    kept = Kept(room, now)
    return ResultCache(kept, keep_s), kept


def has(cache: ResultCache, number: int) -> bool:
    return cache.get("local", numbered(number), "weights") is not None


def numbered(number: int) -> Ask:
    return Ask(request_id="r1", prompt=f"Where is {number}?", model="m")


def test_results_are_kept_for_their_tenant_alone() -> None:
    cache, _ = cache_of()
    cache.put("alice", ASK, result("hers"), "weights")
    assert cache.get("alice", ASK, "weights") is not None
    assert cache.get("bob", ASK, "weights") is None
    assert cache.get("alice", ASK, "others under the same name") is None


def test_the_memory_has_a_limit_and_what_was_used_last_stays() -> None:
    size = len(result("x").to_bytes()) + ENTRY_BYTES
    cache, kept = cache_of(12 * size)
    for number in range(12):
        cache.put("local", numbered(number), result("x"), "weights")
    assert has(cache, 0)
    cache.put("local", numbered(12), result("x"), "weights")
    assert [number for number in range(13) if not has(cache, number)] == [1]
    assert (len(kept), kept.bytes, kept.evicted) == (12, 12 * size, 1)
    cache.put("local", numbered(13), result("x" * 2 * size), "weights")
    assert not has(cache, 13), "one alone would push out too many"


def test_the_limit_is_of_the_memory_that_is_taken() -> None:
    room = 512 * 1024
    cache, kept = cache_of(room)
    said = [f"answer {number}: " + "a word " * (number % 40) for number in range(3_000)]
    tracemalloc.start()
    try:
        before, _ = tracemalloc.get_traced_memory()
        for number, text in enumerate(said):
            cache.put("local", numbered(number), result(text), "weights")
        held = tracemalloc.get_traced_memory()[0] - before
    finally:
        tracemalloc.stop()
    assert kept.evicted > 0, "the cache is not full"
    assert kept.bytes <= room
    assert held < 1.05 * kept.bytes, f"{held} bytes of memory for {kept.bytes} that are counted"
    found = cache.get("local", numbered(2_999), "weights")
    assert found is not None and found[0] == result(said[-1])


def test_what_is_too_old_is_gone() -> None:
    now_s = 0.0
    cache, kept = cache_of(keep_s=10, now=lambda: now_s)
    cache.put("local", ASK, result("x"), "weights")
    now_s = 9.9
    assert cache.get("local", ASK, "weights") is not None
    now_s = 10.0
    assert cache.get("local", ASK, "weights") is None
    assert kept.bytes == 0


def test_only_what_is_the_same_each_time_may_be_shared() -> None:
    made = {"request_id": "r1", "prompt": "Where?", "model": "m"}
    drawn = Ask(**made, sampling=Sampling(temperature=1.0, seed=seed_of("r1")))
    greedy = Ask(**made, sampling=Sampling(temperature=0.0, seed=seed_of("r1")))
    assert same_each_time(ASK) == ASK
    chosen = Ask(**made, sampling=Sampling(temperature=1.0, seed=0))
    assert same_each_time(chosen) == chosen  # the seed that clients choose most is none that was made
    assert same_each_time(drawn) is None
    assert same_each_time(greedy) == Ask(**made, sampling=Sampling(seed=0))
    assert same_each_time(Ask(request_id="r1", model="m", embed=Embed(inputs=("x",)))) is None
