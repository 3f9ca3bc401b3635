"""What stock clients send beside their question, and need while they wait: none of it is in the way."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest

from services.gateway.settings import GatewaySection
from services.gateway.tests.raw import exchange
from services.gateway.tests.serving import serving

HELLO = [{"role": "user", "content": "Hello"}]
PATIENCE_S = 30.0
"""LlamaIndex gives up after so long without a byte."""
SIGNS = 3
OF_OPEN_WEBUI = {
    "X-OpenWebUI-User-Name": "J%C3%BCrgen%20M.",
    "X-OpenWebUI-User-Id": "6f0a",
    "X-OpenWebUI-User-Email": "j@example.org",
    "X-OpenWebUI-User-Role": "admin",
    "X-OpenWebUI-Chat-Id": "8c1e-../*>",
    "X-OpenWebUI-Message-Id": "77",
}
SILENT = [("", False)] * SIGNS
WAITING: dict[str, dict[str, Any]] = {
    "/api/chat": {"messages": HELLO},
    "/api/generate": {"prompt": "Hello"},
    "/v1/chat/completions": {"messages": HELLO},
    "/v1/messages": {"messages": HELLO, "max_tokens": 64},
    "/v1/responses": {"input": "Hello"},
}
PATHS: dict[str, dict[str, Any]] = {
    "/api/chat": {"messages": HELLO, "stream": False},
    "/v1/chat/completions": {"messages": HELLO},
    "/v1/completions": {"prompt": "Hello"},
}


@pytest.mark.parametrize("value", ["Bearer ", "Bearer", "bearer  ", "Bearer none"])
async def test_a_key_that_is_empty_or_made_up_is_none_where_none_is_needed(gateway: str, value: str) -> None:
    """lm-evaluation-harness sends an empty one."""
    url = httpx.URL(gateway)
    head = f"host: {url.netloc.decode()}\r\nauthorization: {value}\r\nconnection: close\r\n"
    for path in ("/v1/models", "/api/tags"):
        reply = await exchange(url, f"GET {path} HTTP/1.1\r\n{head}\r\n".encode())
        assert reply.startswith(b"HTTP/1.1 200 "), reply
    for path, asked in PATHS.items():
        body = json.dumps({"model": "choir-one", **asked})
        told = f"content-type: application/json\r\ncontent-length: {len(body)}\r\n"
        reply = await exchange(url, f"POST {path} HTTP/1.1\r\n{head}{told}\r\n{body}".encode())
        assert reply.startswith(b"HTTP/1.1 200 "), reply


@pytest.mark.parametrize("path", PATHS)
async def test_what_open_webui_says_of_its_users_and_chats_changes_nothing(
    http: httpx.AsyncClient, path: str
) -> None:
    asked = {"model": "choir-one", **PATHS[path]}
    plain, told = [await http.post(path, json=asked, headers=sent) for sent in ({}, OF_OPEN_WEBUI)]

    assert (plain.status_code, told.status_code) == (200, 200)
    assert plain.json().keys() == told.json().keys()
    assert "Paris" in told.text


@pytest.mark.parametrize("given", ["5m", "-1", "", "1h30m", 0, -1, 300, 300.5])
async def test_how_long_a_model_stays_is_taken_in_each_form(http: httpx.AsyncClient, given: Any) -> None:
    for path in ("/api/chat", "/api/generate"):
        asked = {"messages": HELLO} if path == "/api/chat" else {"prompt": "Hello"}
        body = {"model": "choir-one", "stream": False, "keep_alive": given, **asked}
        reply = await http.post(path, json=body)
        assert (reply.status_code, reply.json()["done"]) == (200, True), reply.text


async def test_thinking_may_be_asked_for_among_the_options(http: httpx.AsyncClient) -> None:
    """As LiteLLM does."""
    for think, status in ((True, 400), ("high", 400), (False, 200)):
        options = {"model": "choir-one", "options": {"think": think}, "messages": HELLO, "stream": False}
        reply = await http.post("/api/chat", json=options)
        assert reply.status_code == status, reply.text
    ensemble = {"model": "choir/majority@four", "messages": HELLO, "stream": False}
    silent = (await http.post("/api/chat", json=ensemble)).json()["message"]
    telling = (await http.post("/api/chat", json={**ensemble, "options": {"think": True}})).json()["message"]
    assert "thinking" not in silent
    assert "choir-three" in telling["thinking"]


async def test_who_waits_for_an_ensemble_hears_of_it_long_before_giving_up(live_mesh: str) -> None:
    assert GatewaySection().first_byte_s < PATIENCE_S / 2 and GatewaySection().heartbeat_s < PATIENCE_S / 2
    quick: dict[str, Any] = {"first_byte_s": 0.05, "heartbeat_s": 0.05}
    sets = {"late": ["choir-one", "choir-slow"]}
    async with serving(live_mesh, sets=sets, **quick) as url, httpx.AsyncClient(base_url=url) as client:
        for path, asked in WAITING.items():
            body = {"model": "choir/majority@late", "stream": True, **asked}
            async with client.stream("POST", path, json=body, timeout=180) as reply:
                lines = [line async for line in _first(reply.aiter_lines())]
            assert reply.status_code == 200
            if path.startswith("/api/"):
                signs = [json.loads(line) for line in lines]
                texts = [
                    sign["message"]["content"] if "message" in sign else sign["response"] for sign in signs
                ]
                assert [(text, sign["done"]) for text, sign in zip(texts, signs, strict=True)] == SILENT
            elif path == "/v1/messages":
                assert lines == ["event: ping", 'data: {"type":"ping"}', "event: ping"]
            else:
                assert all(line.startswith((":", "data: {")) for line in lines)
                assert not any(line.startswith(": ping") for line in lines), "Continue would lose what it has"


async def _first(lines: AsyncIterator[str]) -> AsyncIterator[str]:
    count = 0
    async for line in lines:
        if line:
            yield line
            count += 1
        if count == SIGNS:
            return
