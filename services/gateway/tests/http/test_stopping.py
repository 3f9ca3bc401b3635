"""A gateway that stops tells open requests so: no socket is closed without a word."""

from __future__ import annotations

import asyncio
import json

import httpx
import pytest

from services.client.client import Choir
from services.gateway.requests.identity import ID_HEADER, KEY_HEADER, id_of_key
from services.gateway.tests.serving import accepted, listening

WAIT_S = 180.0
OLLAMA = ("/api/chat", lambda last: json.loads(last)["error"])
OPENAI = ("/v1/chat/completions", lambda last: json.loads(last.removeprefix("data: "))["error"]["message"])
ASK = {"model": "choir-slow", "messages": [{"role": "user", "content": "When?"}]}


@pytest.mark.parametrize(("path", "message"), [OLLAMA, OPENAI], ids=["ollama", "openai"])
async def test_open_requests_hear_that_the_gateway_stops(live_mesh: str, path: str, message: object) -> None:
    assert callable(message)
    async with (
        Choir(live_mesh) as mesh,
        listening(live_mesh, first_byte_s=0.0, heartbeat_s=60.0) as listener,
        httpx.AsyncClient(timeout=WAIT_S) as http,
    ):
        url = f"http://127.0.0.1:{listener.port}{path}"
        headers = {KEY_HEADER: "stopped"}
        whole = asyncio.create_task(http.post(url, json={**ASK, "stream": False}, headers=headers))
        async with http.stream("POST", url, json={**ASK, "stream": True}) as reply:
            ids = (reply.headers[ID_HEADER], id_of_key("stopped", path, ""))
            for request_id in ids:
                await accepted(mesh, request_id)
            stopping = asyncio.create_task(listener.stop(0.05))
            lines = [line async for line in reply.aiter_lines() if line]
        await stopping
        assert "another one goes on" in message(lines[-1])
        refused = await whole
        assert (refused.status_code, refused.headers["retry-after"]) == (503, "1")
        assert "another one goes on" in message(refused.text)

        # what they asked goes on in the mesh: nobody has given it up
        for request_id in ids:
            assert await mesh.cancel(request_id)
