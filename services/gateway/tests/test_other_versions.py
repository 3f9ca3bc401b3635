"""Gateways of two versions beside one another, as during an upgrade of one host after the other."""

from __future__ import annotations

import zlib
from typing import Any

import httpx
import pytest

from services.gateway.requests.identity import id_of_key, seed_of
from services.gateway.requests.retries import said_in
from services.gateway.tests.serving import serving

MAKE_SEEDS = ("openai.asking.sampling", "ollama.options", "anthropic.body")
HELLO = [{"role": "user", "content": "Hello, whichever version you are"}]
CHAT = {"model": "choir-one", "messages": HELLO}
DIALECTS: dict[str, tuple[str, dict[str, Any]]] = {
    "chat": ("/v1/chat/completions", CHAT),
    "stream": ("/v1/chat/completions", {**CHAT, "stream": True}),
    "many": ("/v1/completions", {"model": "choir-one", "prompt": ["one", "two"]}),
    "background": ("/v1/responses", {"model": "choir-one", "input": "Hello", "background": True}),
    "ollama": ("/api/chat", {**CHAT, "stream": False}),
    "anthropic": ("/v1/messages", {**CHAT, "max_tokens": 20}),
}


def other_version(monkeypatch: pytest.MonkeyPatch) -> None:
    """From now on gateways make other seeds, as a version does that makes them otherwise."""
    for module in MAKE_SEEDS:
        monkeypatch.setattr(f"services.gateway.{module}.seed_of", lambda said: zlib.adler32(said.encode()))


@pytest.mark.parametrize("dialect", DIALECTS)
async def test_a_request_that_is_sent_again_is_the_same_at_a_gateway_of_another_version(
    live_mesh: str, monkeypatch: pytest.MonkeyPatch, dialect: str
) -> None:
    path, body = DIALECTS[dialect]
    key = {"idempotency-key": f"versions {dialect}"}
    async with serving(live_mesh) as one, serving(live_mesh) as other, httpx.AsyncClient(timeout=180) as http:
        first = await http.post(one + path, json=body, headers=key)
        assert first.status_code == 200, first.text

        other_version(monkeypatch)
        again = await http.post(other + path, json=dict(reversed(body.items())), headers=key)
        changed = {**body, "model": "choir-two"}
        refused = [await http.post(url + path, json=changed, headers=key) for url in (other, one, other)]

    assert again.status_code == 200, again.text
    assert again.headers["choir-request-id"] == first.headers["choir-request-id"]
    if dialect == "stream":
        assert again.text.endswith("data: [DONE]\n\n")
    # What says something else is another request, however often it comes
    assert {(reply.status_code, "different request" in reply.text) for reply in refused} == {(409, True)}


async def test_a_retry_of_stock_clients_is_the_same_at_a_gateway_of_another_version(
    live_mesh: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    replies = []
    async with serving(live_mesh) as one, serving(live_mesh) as other, httpx.AsyncClient(timeout=180) as http:
        for tries, url in enumerate((one, other, one)):
            headers = {"x-stainless-retry-count": str(tries)}
            replies.append(await http.post(f"{url}/v1/chat/completions", json=CHAT, headers=headers))
            other_version(monkeypatch)

    assert [reply.status_code for reply in replies] == [200, 200, 200], replies[-1].text
    assert len({reply.headers["choir-request-id"] for reply in replies}) == 1


def test_what_gateways_know_a_request_by_is_the_same_in_all_versions() -> None:
    assert id_of_key("order 66", "/v1/chat/completions", "acme K1") == (
        "key-69519b3fdb1fa2d8da0c22400a59bf0613b5ea3a"
    )
    assert seed_of("key-1") == 3421138568
    assert said_in(
        "/api/chat", "Bearer none", "K1", {"model": "one", "messages": [{"content": "Grüße"}]}
    ) == ("66b2fe95a6f6c90b31537c84557f20ae")
