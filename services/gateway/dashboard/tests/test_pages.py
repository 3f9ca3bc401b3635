"""The pages without a browser: what is in them, what they refuse, and that strangers' texts are texts."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
import pytest_asyncio

from services.gateway.access.tests.conftest import MakeKey, locked, make_key
from services.gateway.dashboard.pages import MOST_CHARACTERS, fragment, shown
from services.gateway.dashboard.waterfall import bars
from services.gateway.tests.serving import serving

__all__ = ["locked", "make_key"]

PAGES = ("/dashboard", "/dashboard/ask", "/dashboard/requests")
DEADLINE_S = 30.0
HOSTILE = "<script>alert(1)</script>\x07\u202egnp.exe"


@pytest_asyncio.fixture
async def http(live_mesh: str) -> AsyncIterator[httpx.AsyncClient]:
    """A client of a gateway."""
    async with serving(live_mesh) as url, httpx.AsyncClient(base_url=url, timeout=60) as client:
        yield client


Told = AsyncIterator[tuple[str, dict[str, Any]]]


async def _events(http: httpx.AsyncClient, path: str, **request: Any) -> Told:
    method = "POST" if "json" in request else "GET"
    async with asyncio.timeout(DEADLINE_S), http.stream(method, path, **request) as reply:
        assert reply.status_code == 200, await reply.aread()
        name = ""
        async for line in reply.aiter_lines():
            if line.startswith("event: "):
                name = line.removeprefix("event: ")
            elif line.startswith("data: "):
                yield name, json.loads(line.removeprefix("data: "))


async def test_every_page_is_complete_and_lets_nothing_in_from_elsewhere(http: httpx.AsyncClient) -> None:
    for path in PAGES:
        reply = await http.get(path)
        assert reply.status_code == 200
        policy = reply.headers["content-security-policy"]
        assert "default-src 'none'" in policy and "unsafe" not in policy
        assert "<script>" not in reply.text and " style=" not in reply.text and "://" not in reply.text
        assert len(reply.content) < 200_000
    mesh = (await http.get("/dashboard")).text
    assert "choir-one" in mesh and "quartet" in mesh


async def test_a_browser_is_led_to_the_dashboard_and_other_clients_are_not(http: httpx.AsyncClient) -> None:
    led = await http.get("/", headers={"accept": "text/html,application/xhtml+xml"})
    assert (led.status_code, led.headers["location"]) == (303, "/dashboard")
    assert (await http.get("/")).text == "Ollama is running"


async def test_the_mesh_page_is_told_what_changes(http: httpx.AsyncClient) -> None:
    seen: dict[str, str] = {}
    async for name, fields in _events(http, "/dashboard/live/mesh"):
        assert name == "fragment"
        seen[fields["id"]] = fields["html"]
        if {"hosts", "models", "state"} <= set(seen):
            break
    assert "choir-one" in seen["models"]


async def test_answers_come_side_by_side_and_the_request_has_a_page(http: httpx.AsyncClient) -> None:
    body = {"prompt": HOSTILE, "models": ["choir-one", "choir-three"], "strategies": ["majority", "weighted"]}
    told = [each async for each in _events(http, "/dashboard/ask/answers", json=body)]
    assert told[0][0] == "asked"
    assert {fields["agent"] for name, fields in told if name == "piece"} == {"choir-one", "choir-three"}
    name, fields = told[-1]
    assert name == "result" and "weighted" in fields["html"] and "Lyon" in fields["html"]
    link = told[0][1]["link"]
    page = (await http.get(link)).text
    assert "How it was decided" in page and "Lyon" in page
    assert (await http.get(f"{link}/json")).json()["topology"] == "ensemble"
    async with asyncio.timeout(DEADLINE_S):
        while True:
            listed = await http.get("/dashboard/requests?model=choir-three")
            if told[0][1]["id"] in listed.text:
                break
            await asyncio.sleep(0.1)
    assert told[0][1]["id"] not in (await http.get("/dashboard/requests?state=failed")).text
    assert "Where the time went" in (await http.get(link)).text


@pytest.mark.parametrize(
    ("path", "status", "told"),
    [
        ("/dashboard/requests/01J00000000000000000000000", 404, "There is nothing here"),
        ("/dashboard/requests/=x=", 404, "There is nothing here"),
        ("/dashboard/nothing", 404, "There is nothing here"),
        ("/dashboard/static/..%2Fpages.py", 404, "There is nothing here"),
        ("/dashboard/requests?state=%3Cb%3E&within=x&model=%22%3E%3Cscript%3E", 200, "Requests"),
    ],
)
async def test_what_is_not_there_has_a_page_that_says_so(
    http: httpx.AsyncClient, path: str, status: int, told: str
) -> None:
    reply = await http.get(path)
    assert (reply.status_code, told in reply.text, "<script>" in reply.text) == (status, True, False)


@pytest.mark.parametrize("body", [{}, {"prompt": ""}, {"prompt": "x", "models": ["nobody"]}, {"prompt": 1}])
async def test_a_form_that_is_wrong_is_told_what_is(http: httpx.AsyncClient, body: dict[str, Any]) -> None:
    reply = await http.post("/dashboard/ask/answers", json=body)
    assert reply.status_code in (400, 404)
    assert "<main" in reply.text


async def test_where_keys_are_wanted_a_browser_shows_its_key_once(
    locked: httpx.AsyncClient, make_key: MakeKey
) -> None:
    stranger = await locked.get("/dashboard")
    assert stranger.status_code == 401 and "API key" in stranger.text
    assert (await locked.post("/dashboard/login", json={"key": "choir-k-guess"})).status_code == 401
    secret = await make_key(scopes=("observe",))
    let_in = await locked.post("/dashboard/login", json={"key": secret})
    said = let_in.headers["set-cookie"].lower()
    assert "httponly" in said and "samesite=strict" in said and "path=/dashboard" in said
    cookie = {"cookie": f"choir_key={secret}"}
    assert (await locked.get("/dashboard", headers=cookie)).status_code == 200
    assert (await locked.get("/v1/models", headers=cookie)).status_code == 401
    refused = await locked.post("/dashboard/ask/answers", headers=cookie, json={"prompt": "x"})
    assert refused.status_code == 403


def test_what_strangers_wrote_is_text() -> None:
    assert shown(HOSTILE) == "<script>alert(1)</script>\u2407\ufffdgnp.exe"
    assert len(shown("a" * 1_000_000)) < MOST_CHARACTERS + 50
    html = fragment("requests_table.html.j2", rows=[], problem=HOSTILE, most=1)
    assert "&lt;script&gt;" in html and "<script>" not in html


def test_the_bars_of_a_request_lie_on_one_axis() -> None:
    task = {"name": "a", "round": 1, "host": "h", "instance": "i", "queue_ms": 100.0, "slot_ms": 0.0}
    task |= {"load_ms": None, "prompt_eval_ms": 100.0, "eval_ms": 200.0, "total_ms": 300.0}
    first, second = bars([{**task, "ended_at_s": 10.4}, {**task, "ended_at_s": 10.8, "round": 2}], None)
    assert [(part.kind, round(part.start, 1), round(part.width, 1)) for part in first.parts] == [
        ("queue", 0.0, 12.5), ("prompt", 12.5, 12.5), ("eval", 25.0, 25.0),
    ]  # fmt: skip
    assert (second.name, round(second.parts[0].start)) == ("a, round 2", 50)
    assert bars([], None) == ()
