"""Limits of keys at the door of several gateways: what is within them is served, and one more is not."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx
from openai import AsyncOpenAI

from infra.testing.choir_up import connect_inside
from infra.testing.mesh import eventually
from schemas import subjects
from schemas.requests.keys import id_in
from schemas.requests.tenants import QUEUE_LENGTH
from services.chassis.nats.bucket import BYTES, Bucket
from services.gateway.access.places import read_held
from services.gateway.access.tests.conftest import MakeKey, bearer
from services.gateway.openai.batches.tests.test_batches import begin, line, over, until
from services.gateway.requests.identity import ID_HEADER
from services.gateway.tests.serving import serving

CHAT = {"model": "choir-one", "messages": [{"role": "user", "content": "Capital?"}], "max_tokens": 5}
SLOW = {**CHAT, "model": "choir-slow", "stream": True}
COMPLETIONS = "/v1/chat/completions"
SOON_S = 50.0
"""Within that nothing is a minute old."""


@asynccontextmanager
async def gateways(mesh_url: str) -> AsyncIterator[tuple[httpx.AsyncClient, httpx.AsyncClient]]:
    """Clients of two more gateways that want keys."""
    settings: dict[str, Any] = {"keys_required": True, "first_byte_s": 0.01}
    async with (
        serving(mesh_url, **settings) as one,
        serving(mesh_url, **settings) as other,
        httpx.AsyncClient(base_url=one, timeout=180) as first,
        httpx.AsyncClient(base_url=other, timeout=180) as second,
    ):
        yield first, second


async def in_its_queue(mesh_url: str, priority: subjects.Priority, request_id: str) -> bool:
    """Whether the mesh has a command of the request among the work of a class."""
    connection = await connect_inside(mesh_url)
    try:
        info = await connection.jetstream().stream_info(
            subjects.COMMANDS_STREAM, subjects_filter=subjects.all_of_class(priority)
        )
    finally:
        await connection.close()
    return any(subject.endswith(f".{request_id}") for subject in info.state.subjects or {})


async def batch_work_of(mesh_url: str, secret: str) -> int:
    """How many requests of the class batch the mesh knows to be in work for a key."""
    connection = await connect_inside(mesh_url)
    try:
        bucket = Bucket(connection, subjects.KEY_USES_BUCKET, BYTES)
        held = read_held((await bucket.get(subjects.key_batch_places(id_in(secret) or ""))).value)
    finally:
        await connection.close()
    return sum(count for count, _ in held.values())


async def test_gateways_count_the_requests_of_a_key_together_and_each_dialect_says_when_to_come_again(
    live_mesh: str, locked: httpx.AsyncClient, make_key: MakeKey
) -> None:
    key = bearer(await make_key(limits={"requests_per_minute": 5}))
    async with gateways(live_mesh) as two:
        began_s = time.monotonic()
        # What no model reads is not counted
        for path in ("/api/tags", "/v1/models", "/v1/files", "/api/tags", "/v1/models", "/v1/files"):
            assert (await two[0].get(path, headers=key)).status_code == 200
        asked = (two[number % 2].post(COMPLETIONS, headers=key, json=CHAT) for number in range(14))
        statuses = sorted([reply.status_code for reply in await asyncio.gather(*asked)])
        refused = {
            path: await locked.post(path, headers=key, json=CHAT)
            for path in (COMPLETIONS, "/v1/responses", "/api/chat", "/api/embed", "/v1/messages")
        }
    if time.monotonic() - began_s < SOON_S:
        assert statuses == [200] * 5 + [429] * 9
        for path, reply in refused.items():
            assert reply.status_code == 429, path
            assert 0 < int(reply.headers["retry-after"]) <= 60, path
        openai = refused[COMPLETIONS].json()["error"]
        assert (openai["type"], openai["code"]) == ("rate_limit_error", "rate_limit_exceeded")
        assert refused["/v1/responses"].json()["error"] == openai
        assert "may ask 5 requests a minute" in refused["/api/chat"].json()["error"]
        anthropic = refused["/v1/messages"].json()
        assert (anthropic["type"], anthropic["error"]["type"]) == ("error", "rate_limit_error")
    assert (await locked.get("/v1/models", headers=key)).status_code == 200
    another = bearer(await make_key(limits={"requests_per_minute": 5}))
    assert (await locked.post(COMPLETIONS, headers=another, json=CHAT)).status_code == 200


async def test_all_that_a_key_of_batch_work_asks_is_batch_work_and_gateways_count_that_together(
    live_mesh: str, locked: httpx.AsyncClient, make_key: MakeKey
) -> None:
    two_of_them = {"batch_share": 2.1 / QUEUE_LENGTH}
    secret = await make_key(priority="batch", limits=two_of_them)
    key, usual = bearer(secret), bearer(await make_key(limits={"batch_share": 0.5 / QUEUE_LENGTH}))
    async with gateways(live_mesh) as (first, second):
        async with (
            first.stream("POST", COMPLETIONS, json=SLOW, headers=key) as one,
            second.stream("POST", COMPLETIONS, json=SLOW, headers=key) as two,
        ):
            assert (one.status_code, two.status_code) == (200, 200)
            request_id = one.headers[ID_HEADER]
            await eventually(lambda: in_its_queue(live_mesh, "batch", request_id))
            assert not await in_its_queue(live_mesh, "interactive", request_id)
            for gateway in (locked, first, second):
                more = await gateway.post(COMPLETIONS, headers=key, json=CHAT)
                assert (more.status_code, more.headers["retry-after"]) == (429, "1")
                assert "part of the queue has room for: 2" in more.json()["error"]["message"]
            # What is no batch work has nothing to do with it, nor what no model reads
            assert (await locked.get("/v1/models", headers=key)).status_code == 200
            asked = (locked.post(COMPLETIONS, headers=usual, json=CHAT) for _ in range(4))
            assert {reply.status_code for reply in await asyncio.gather(*asked)} == {200}

        async def is_served() -> bool:
            return (await locked.post(COMPLETIONS, headers=key, json=CHAT)).status_code == 200

        await eventually(is_served)
    background = {"model": "choir-slow", "input": "Capital?", "background": True}
    uncounted = await locked.post("/v1/responses", headers=key, json=background)
    assert (uncounted.status_code, uncounted.json()["error"]["param"]) == (400, "background")
    waits = bearer(await make_key(priority="batch"))
    made = await locked.post("/v1/responses", headers=waits, json=background)
    assert made.status_code == 200, made.text
    await eventually(lambda: in_its_queue(live_mesh, "batch", made.headers[ID_HEADER]))
    await locked.post(f"/v1/responses/{made.json()['id']}/cancel", headers=waits)


async def test_the_lines_of_a_batch_are_batch_work_of_its_key(
    live_mesh: str, locked: httpx.AsyncClient, make_key: MakeKey
) -> None:
    secret = await make_key(limits={"batch_share": 0.5 / QUEUE_LENGTH})
    async with AsyncOpenAI(base_url=f"{locked.base_url}/v1", api_key=secret, timeout=180) as client:
        begun = await begin(client, line(1, "choir-slow"), line(2, "choir-slow"))

        async def one_is_in_work() -> bool:
            return await batch_work_of(live_mesh, secret) == 1

        await eventually(one_is_in_work)
        # The key's own requests are none
        reply = await locked.post(COMPLETIONS, headers=bearer(secret), json=CHAT)
        assert reply.status_code == 200
        await client.batches.cancel(begun.id)
        await until(client, begun, over)
