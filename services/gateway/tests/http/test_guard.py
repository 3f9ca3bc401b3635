"""Who may speak to the gateway: attacks by way of a browser, and what must go on to work."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import httpx
import pytest
import pytest_asyncio

from services.gateway.tests.raw import exchange
from services.gateway.tests.serving import serving

ASK = {"model": "choir-one", "prompt": "Capital?", "stream": False}
EVERY_PATH = ("/", "/api/tags", "/api/chat", "/v1/models", "/v1/chat/completions", "/nothing")


@pytest_asyncio.fixture
async def guarded(live_mesh: str) -> AsyncIterator[httpx.AsyncClient]:
    """A client of a gateway that has one more name, and that one page may ask."""
    settings = {"hosts": ("choir.example",), "origins": ("https://chat.example",)}
    async with serving(live_mesh, **settings) as url, httpx.AsyncClient(base_url=url, timeout=60) as client:
        yield client


@pytest.mark.parametrize(
    "host", ["rebound.example.", "localhost.rebound.example", "localhost.", "127.0.0.1."]
)
async def test_a_dot_behind_a_name_makes_it_no_name_of_ours(guarded: httpx.AsyncClient, host: str) -> None:
    assert (await guarded.get("/api/tags", headers={"host": host})).status_code == 403


@pytest.mark.parametrize("path", EVERY_PATH)
async def test_a_name_that_was_bound_anew_is_refused_on_every_path(
    guarded: httpx.AsyncClient, path: str
) -> None:
    reply = await guarded.get(path, headers={"host": "rebound.example:11435"})
    assert reply.status_code == 403
    assert "another host" in reply.text


@pytest.mark.parametrize("host", ["localhost", "LOCALHOST:80", "127.0.0.1:1", "[::1]:11435", "choir.example"])
async def test_its_own_names_are_answered(guarded: httpx.AsyncClient, host: str) -> None:
    assert (await guarded.get("/api/version", headers={"host": host})).status_code == 200


@pytest.mark.parametrize(
    "hosts",
    [
        b"", b"Host: \r\n", b"Host: localhost\r\nHost: rebound.example\r\n", b"Host: a@localhost\r\n",
        b"Host: localhost/api\r\n", b"Host: localhost?\r\n", b"Host: localhost#\r\n",
        b"Host: localhost\\\r\n", b"Host: localhost:80:80\r\n", b"Host: local host\r\n",
    ],
)  # fmt: skip
async def test_a_host_that_can_be_read_in_two_ways_is_refused(
    guarded: httpx.AsyncClient, hosts: bytes
) -> None:
    reply = await exchange(guarded.base_url, b"GET /api/tags HTTP/1.1\r\n" + hosts + b"\r\n")
    assert reply.startswith(b"HTTP/1.1 400 ")


@pytest.mark.parametrize(
    "headers",
    [
        {"origin": "https://evil.example"},
        {"origin": "null"},
        {"origin": "http://localhost.evil.example"},
        {"origin": "https://chat.example.evil.example"},
        {"origin": "http://chat.example"},
        {"origin": "http://[half"},
        {"sec-fetch-site": "cross-site"},
    ],
    ids=str,
)
async def test_a_page_of_another_site_may_not_ask(
    guarded: httpx.AsyncClient, headers: dict[str, str]
) -> None:
    for method, path in (("POST", "/api/generate"), ("OPTIONS", "/api/chat"), ("GET", "/v1/models")):
        reply = await guarded.request(method, path, json=ASK, headers=headers)
        assert reply.status_code == 403
        assert "access-control-allow-origin" not in reply.headers
        assert reply.json()["error"]


async def test_a_page_that_may_ask_is_told_so(guarded: httpx.AsyncClient) -> None:
    for origin in ("https://chat.example", "http://localhost:3000", "http://127.0.0.1:8080"):
        reply = await guarded.post("/api/generate", json=ASK, headers={"origin": origin})
        assert reply.json()["response"] == "Paris"
        assert reply.headers["access-control-allow-origin"] == origin
        assert "Origin" in reply.headers["vary"]
        before = await guarded.options("/api/chat", headers={"origin": origin})
        assert before.status_code == 204
        assert "authorization" in before.headers["access-control-allow-headers"]


async def test_a_page_cannot_ask_by_a_form(guarded: httpx.AsyncClient) -> None:
    """No preflight is made for these, so a browser would send them to anybody."""
    for kind in ("text/plain", "application/x-www-form-urlencoded", "multipart/form-data"):
        headers = {"origin": "http://localhost:3000", "content-type": kind}
        reply = await guarded.post("/api/generate", content=b"{}", headers=headers)
        assert reply.status_code == 415
    plain = await guarded.post("/api/generate", content=b'{"model": "choir-one"}')
    assert plain.status_code == 200


async def test_no_field_of_a_body_says_where_the_server_connects_or_what_it_renders(
    guarded: httpx.AsyncClient,
) -> None:
    came: list[object] = []
    elsewhere = await asyncio.start_server(lambda *one: came.append(one), "127.0.0.1", 0)
    url = f"http://127.0.0.1:{elsewhere.sockets[0].getsockname()[1]}/v1"
    steering = {
        **dict.fromkeys(("api_base", "base_url", "api_url", "endpoint", "proxy"), url),
        "model_list": [{"model_name": "choir-one", "litellm_params": {"api_base": url}}],
        "user_config": {"model_list": [{"api_base": url}]},
        "extra_headers": {"x-forwarded-host": url},
        "extra_body": {"api_base": url},
        "chat_template": "{{ cycler.__init__.__globals__.os.system('false') }}",
        "chat_template_kwargs": {"chat_template": "{% for a in range(10**9) %}{% endfor %}"},
        "template": "{{ range 1000000000 }}",
    }
    said = [{"role": "user", "content": "Capital?"}]
    chat = {"model": "choir-one", "messages": said, "max_tokens": 5, "stream": False}
    async with elsewhere:
        for path, body in (
            ("/v1/chat/completions", chat),
            ("/v1/completions", {"model": "choir-one", "prompt": "Capital?"}),
            ("/v1/responses", {"model": "choir-one", "input": "Capital?"}),
            ("/v1/messages", chat),
            ("/api/chat", chat),
            ("/api/generate", ASK),
        ):
            reply = await guarded.post(path, json={**steering, **body})
            assert reply.status_code == 200 and "Paris" in reply.text, (path, reply.text)
    assert came == []


POST = b"POST /api/show HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
SMUGGLED = b"GET /api/tags HTTP/1.1\r\nHost: localhost\r\n\r\n"


@pytest.mark.parametrize(
    "sent",
    [
        POST + b"Transfer-Encoding: chunked\r\nContent-Length: 4\r\n\r\n0\r\n\r\n" + SMUGGLED,
        POST + b"Content-Length: 4\r\nContent-Length: 40\r\n\r\nabcd" + SMUGGLED,
        POST + b"Content-Length: +4\r\n\r\nabcd" + SMUGGLED,
        POST + b"Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n\r\n0\r\n\r\n" + SMUGGLED,
    ],
)
async def test_where_a_body_ends_is_read_in_one_way(guarded: httpx.AsyncClient, sent: bytes) -> None:
    reply = await exchange(guarded.base_url, sent)
    assert reply.startswith(b"HTTP/1.1 4"), reply
    assert reply.count(b"HTTP/1.1 ") == 1 and b'"models"' not in reply


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        (b"GET http://rebound.example/api/version HTTP/1.1\r\nHost: rebound.example\r\n\r\n", b"403"),
        (b"GET /api/version HTTP/1.0\r\n\r\n", b"400"),
        (
            b"GET /api/version HTTP/1.1\r\nHost: localhost\r\nRange: bytes=" + b"0-1," * 900 + b"2-\r\n\r\n",
            b"200",
        ),
    ],
)
async def test_odd_heads_are_answered_once_and_go_round_nothing(
    guarded: httpx.AsyncClient, sent: bytes, status: bytes
) -> None:
    reply = await exchange(guarded.base_url, sent)
    assert reply.split(b" ", 2)[1] == status, reply
    assert reply.count(b"HTTP/1.1 ") == 1
