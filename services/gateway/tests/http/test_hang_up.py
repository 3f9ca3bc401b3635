"""Who hangs up wants the answer no more: the mesh works on it no longer."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import httpx
import pytest
import pytest_asyncio

from schemas.errors import Cancelled
from services.client.client import Choir
from services.gateway.requests.identity import ID_HEADER, id_of_key
from services.gateway.tests.serving import accepted, serving

SLOW = {"model": "choir-slow", "prompt": "When?"}
SLOW_CHAT = {"model": "choir-slow", "messages": [{"role": "user", "content": "When?"}]}
PATHS = [("/api/generate", SLOW), ("/v1/chat/completions", SLOW_CHAT)]
WAIT_S = 180.0


@pytest_asyncio.fixture
async def mesh(live_mesh: str) -> AsyncIterator[Choir]:
    """A client of the mesh itself."""
    async with Choir(live_mesh) as choir:
        yield choir


@pytest_asyncio.fixture
async def http(live_mesh: str) -> AsyncIterator[httpx.AsyncClient]:
    """A client of a gateway that begins a stream soon."""
    quick = {"first_byte_s": 0.05, "heartbeat_s": 0.05}
    async with serving(live_mesh, **quick) as url, httpx.AsyncClient(base_url=url, timeout=WAIT_S) as client:
        yield client


@pytest.mark.parametrize(("path", "body"), PATHS)
async def test_a_stream_that_is_left_is_cancelled(
    http: httpx.AsyncClient, mesh: Choir, path: str, body: dict[str, object]
) -> None:
    async with http.stream("POST", path, json={**body, "stream": True}) as reply:
        request_id = reply.headers[ID_HEADER]
        signs = [line async for line in _first(reply.aiter_lines(), 3) if line]
        assert signs, "the stream says that it lives"
    with pytest.raises(Cancelled):
        await mesh.fetch(request_id, wait_s=WAIT_S)


@pytest.mark.parametrize(("path", "body"), PATHS)
async def test_a_reply_that_nobody_waits_for_is_cancelled(
    http: httpx.AsyncClient, mesh: Choir, path: str, body: dict[str, object]
) -> None:
    key = f"left-{path.rpartition('/')[2]}"
    headers = {"idempotency-key": key}
    waiting = asyncio.create_task(http.post(path, json={**body, "stream": False}, headers=headers))
    request_id = id_of_key(key, path, "")
    await accepted(mesh, request_id)
    waiting.cancel()
    with pytest.raises(Cancelled):
        await mesh.fetch(request_id, wait_s=WAIT_S)


async def _first(lines: AsyncIterator[str], count: int) -> AsyncIterator[str]:
    for _ in range(count):
        yield await anext(lines)
