"""The pages without a browser: what is in them, what they refuse, and that strangers' texts are texts."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncIterator, Callable
from typing import Any

import httpx
import pytest

from infra.testing.mesh import eventually
from schemas.errors import InvalidRequest
from schemas.nodes.lease import NodeLease
from schemas.replies import ModelQueue, StatusReply
from schemas.requests.keys import ManageKeys
from services.client.client import Choir
from services.client.queries.trace.pieces import waterfall
from services.gateway.access.tests.conftest import MakeKey
from services.gateway.dashboard.ask.page import AskBody, ask_of
from services.gateway.dashboard.mesh.map import drawing_of
from services.gateway.dashboard.mesh.page import parts_of
from services.gateway.dashboard.mesh.view import MeshView, look
from services.gateway.dashboard.requests.waterfall import costs, lines
from services.gateway.dashboard.shell.pages import MOST_CHARACTERS, fragment, shown

PAGES = (
    *("/dashboard", "/dashboard/ask", "/dashboard/requests", "/dashboard/pipelines", "/dashboard/workers"),
    *("/dashboard/nodes", "/dashboard/models", "/dashboard/runs", "/dashboard/queries", "/dashboard/admin"),
)
DEADLINE_S = 180.0
HOSTILE = "<script>alert(1)</script>\x07\u202egnp.exe"


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


async def _shown_on(http: httpx.AsyncClient, path: str, text: str) -> None:
    """Returns when a page has the text."""
    async with asyncio.timeout(DEADLINE_S):
        while text not in (await http.get(path)).text:  # noqa: ASYNC110  (nobody signals it)
            await asyncio.sleep(0.1)


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


def test_an_ensemble_of_the_file_is_asked_by_its_name_whatever_else_is_chosen() -> None:
    chosen = {"models": ["one", "two"], "strategies": ["isp"], "choices": ["A", "B"]}
    ask = ask_of(AskBody.model_validate({"prompt": "x", "ensemble": "council", **chosen}))
    assert (ask.model, ask.models, ask.choices) == ("council", (), ("A", "B"))
    with pytest.raises(InvalidRequest, match="a chain begins with one model"):
        ask_of(AskBody.model_validate({"prompt": "x", "ensemble": "council", "summarize_with": ["one"]}))


async def test_a_browser_is_led_to_the_dashboard_and_other_clients_are_not(http: httpx.AsyncClient) -> None:
    led = await http.get("/", headers={"accept": "text/html,application/xhtml+xml"})
    assert (led.status_code, led.headers["location"]) == (303, "/dashboard")
    assert (await http.get("/")).text == "Ollama is running"
    icon = await http.get("/favicon.ico")  # a browser asks for it beside a request's JSON
    assert (icon.status_code, icon.headers["content-type"]) == (200, "image/svg+xml")


async def test_the_mesh_page_is_told_what_changes(http: httpx.AsyncClient) -> None:
    seen: dict[str, str] = {}
    async for name, fields in _events(http, "/dashboard/live/mesh"):
        assert name == "fragment"
        seen[fields["id"]] = fields["html"]
        if {"hosts", "models", "state"} <= set(seen):
            break
    assert "choir-one" in seen["models"]


async def test_the_mesh_page_tells_what_waits_for_each_model_and_what_is_in_work(
    http: httpx.AsyncClient, live_mesh: str
) -> None:
    row = re.compile(
        r'choir-slow</bdi></th><td><bdi>[^<]*</bdi></td><td class="n">(\d+)</td><td class="n">(\d+)<'
    )
    asked: list[str] = []

    async def seen(is_so: Callable[[int, int], bool]) -> None:
        """Returns when the page tells of so many that wait, and that are in work."""
        async for _, fields in _events(http, "/dashboard/live/mesh"):
            found = row.search(fields["html"])
            if found and is_so(int(found[1]), int(found[2])):
                return

    async with Choir(live_mesh) as mesh:
        (slots,) = [model.slots for model in await mesh.models() if model.name == "choir-slow"]
        try:
            for _ in range(slots + 3):
                asked.append(await mesh.submit("When?", model="choir-slow"))
            await seen(lambda waiting, in_work: waiting >= 3 and in_work >= slots)
        finally:
            for request_id in asked:
                await mesh.cancel(request_id)
        await seen(lambda waiting, in_work: waiting == in_work == 0)


def test_a_model_that_nobody_serves_any_more_is_shown_while_something_waits_for_it() -> None:
    gone = {"gone": ModelQueue(waiting=3), HOSTILE: ModelQueue(in_work=1)}
    status = StatusReply(
        services={}, models=(), slots=0, busy=0, queued=3, results=0, problems=(), queues=gone
    )
    html = parts_of(MeshView(status=status))["models"]
    assert 'gone</bdi></th><td class="problem">nobody at present</td><td class="n">3</td>' in html
    assert "<script" not in html and "No model can be asked" not in html
    hosts: dict[str, tuple[NodeLease, ...]] = {f"host-{number}": () for number in range(4)}
    assert (
        drawing_of(MeshView(status=status, hosts=hosts)).broker == "broker, 3 in the queue; waiting: gone 3"
    )
    assert drawing_of(MeshView(status=status)).broker == "broker, 3 in the queue; waiting: go\u2026"


async def test_answers_come_side_by_side_and_the_request_has_a_page(http: httpx.AsyncClient) -> None:
    strategies = ["majority", "weighted", "debate"]
    body = {"prompt": HOSTILE, "models": ["choir-one", "choir-three"], "strategies": strategies}
    told = [each async for each in _events(http, "/dashboard/ask/answers", json=body)]
    assert told[0][0] == "asked"
    assert {fields["agent"] for name, fields in told if name == "piece"} == {"choir-one", "choir-three"}
    name, fields = told[-1]
    assert name == "result" and "weighted" in fields["html"] and "Lyon" in fields["html"]
    again = [each async for each in _events(http, "/dashboard/ask/answers", json=body)]
    link = again[0][1]["link"]
    assert link != told[0][1]["link"]
    page = (await http.get(link)).text
    for part in (
        "How it was decided",
        "Lyon",
        "Debate: each answers again",
        "What it took",
        "The SQL behind",
    ):
        assert part in page, part
    assert (await http.get(f"{link}/json")).json()["topology"] == "ensemble"
    # the event database hears of each request by itself
    await _shown_on(http, "/dashboard/requests?model=choir-three", told[0][1]["id"])
    for part in ("Where the time went", "request_accepted"):
        await _shown_on(http, link, part)
    assert told[0][1]["id"] not in (await http.get("/dashboard/requests?state=failed")).text


async def test_one_click_says_that_an_answer_is_right_and_only_from_a_page_of_ours(
    http: httpx.AsyncClient,
) -> None:
    body = {"prompt": "Capital?", "models": ["choir-one", "choir-three"], "strategies": ["majority"]}
    told = [each async for each in _events(http, "/dashboard/ask/answers", json=body)]
    feedback = {"request_id": told[0][1]["id"], "wrong": "Lyon"}
    path, own = "/dashboard/ask/feedback", str(http.base_url).rstrip("/")
    assert 'action="/dashboard/ask/feedback"' in told[-1][1]["html"]
    for origin in ("http://127.0.0.1:9", "https://elsewhere.example", "null"):
        refused = await http.post(path, json=feedback, headers={"origin": origin})
        assert refused.status_code == 403, origin
    as_form = await http.post(path, content="wrong=Lyon", headers={"origin": own})
    assert as_form.status_code == 415
    counted = await http.post(path, json=feedback, headers={"origin": own})
    assert counted.json() == {"words": "Counted: wrong: choir-three", "right": [], "wrong": ["choir-three"]}
    again = await http.post(path, json={**feedback, "wrong": None, "correct": "Paris"})
    assert again.json()["words"] == "It was counted before; the first word stands."


async def test_the_list_is_filtered_by_strategy_and_tenant_and_its_charts_are_those_of_the_analysis(
    http: httpx.AsyncClient,
) -> None:
    body = {"prompt": "Capital?", "models": ["choir-one", "choir-two"], "strategies": ["isp"]}
    told = [each async for each in _events(http, "/dashboard/ask/answers", json=body)]
    await _shown_on(http, "/dashboard/requests?strategy=isp&tenant=local", told[0][1]["id"])
    for other in ("strategy=topic", "tenant=alice", "state=failed", "model=choir-four"):
        assert told[0][1]["id"] not in (await http.get(f"/dashboard/requests?{other}")).text, other
    drawn = (await http.get("/dashboard/charts/activity?within=1+h")).json()
    assert drawn["spec"]["title"] == "Activity" and drawn["spec"]["vconcat"]
    assert (await http.get("/dashboard/charts/nothing")).status_code == 404


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
    assert re.search(r"</h1>\s*<p>[^<]+</p>", reply.text)  # where a form looks for the reason: main h1 + p


async def test_where_keys_are_wanted_a_browser_shows_its_key_once(
    locked: httpx.AsyncClient, make_key: MakeKey
) -> None:
    stranger = await locked.get("/dashboard")
    assert stranger.status_code == 401 and "choir keys add --scope observe" in stranger.text
    assert "Authorization" not in stranger.text  # that is for programs, which get no page
    assert (await locked.post("/dashboard/login", json={"key": "choir-k-guess"})).status_code == 401
    secret = await make_key(scopes=("observe",))
    let_in = await locked.post("/dashboard/login", json={"key": secret})
    said = let_in.headers["set-cookie"].lower()
    assert "httponly" in said and "samesite=strict" in said and "path=/dashboard" in said
    cookie = {"cookie": f"choir_key={secret}"}
    assert (await locked.get("/dashboard", headers=cookie)).status_code == 200
    assert (await locked.get("/v1/models", headers=cookie)).status_code == 401
    asker = {"cookie": f"choir_key={await make_key(scopes=('generate',))}"}
    assert (await locked.get("/dashboard/ask", headers=asker)).status_code == 200
    assert (
        await locked.get("/dashboard/requests/01J00000000000000000000000", headers=asker)
    ).status_code == 404
    assert (await locked.get("/dashboard", headers=asker)).status_code == 403
    assert (await locked.get("/dashboard/ask", headers=cookie)).status_code == 403
    refused = await locked.post("/dashboard/ask/answers", headers=cookie, json={"prompt": "x"})
    assert refused.status_code == 403


def test_what_strangers_wrote_is_text() -> None:
    assert shown(HOSTILE) == "<script>alert(1)</script>\u2407\ufffdgnp.exe"
    assert len(shown("a" * 1_000_000)) < MOST_CHARACTERS + 50
    html = fragment("requests/table.html.j2", rows=[], problem=HOSTILE, most=1)
    assert "&lt;script&gt;" in html and "<script>" not in html


async def test_a_mesh_that_is_lost_is_told_and_what_was_seen_last_stays(live_mesh: str) -> None:
    async with Choir(live_mesh) as mesh:
        seen = await look(mesh, MeshView())
    lost = await look(mesh, seen)
    assert seen.problem is None and lost.problem is not None and lost.hosts == seen.hosts
    parts = parts_of(lost)
    assert "Below is what was seen last" in parts["problems"] and "choir-one" in parts["models"]
    hostile = seen.nodes[0].model_copy(update={"host": HOSTILE * 1_000, "service": HOSTILE})
    html = parts_of(MeshView(hosts={HOSTILE * 1_000: (hostile,)}))["hosts"]
    assert "<script" not in html and "\u202e" not in html and "<bdi>&lt;script&gt;" in html


async def test_a_request_that_failed_has_its_page_too_and_is_counted_by_its_error(
    http: httpx.AsyncClient, live_mesh: str
) -> None:
    body = {"prompt": "word " * 500, "models": ["choir-short"]}
    told = [each async for each in _events(http, "/dashboard/ask/answers", json=body)]
    assert told[-1][0] == "failed"
    async with Choir(live_mesh) as mesh:
        request_id = await mesh.submit("hi", model="choir-slow")
        await mesh.cancel(request_id)

    async def counted() -> bool:
        page = (await http.get("/dashboard/requests?state=failed")).text
        codes = (
            '<th scope="row">cancelled</th><td>failed',
            '<th scope="row">context_exceeded</th><td>refused',
        )
        return request_id in page and "Errors by code" in page and all(code in page for code in codes)

    await eventually(counted)
    page = (await http.get(f"/dashboard/requests/{request_id}")).text
    assert "cancelled" in page and "The SQL behind" in page
    for other in ("model=choir-one", "strategy=isp", "tenant=alice", "state=answered"):
        assert "context_exceeded" not in (await http.get(f"/dashboard/requests?{other}")).text, other
    assert "context_exceeded" in (await http.get("/dashboard/requests?tenant=local&state=failed")).text


async def test_a_page_that_is_open_when_its_key_ends_is_told_and_shows_no_more(
    locked: httpx.AsyncClient, make_key: MakeKey, live_mesh: str
) -> None:
    secret = await make_key(scopes=("observe",))
    cookie = {"cookie": f"choir_key={secret}"}
    ended: list[str] = []
    async for name, fields in _events(locked, "/dashboard/live/mesh", headers=cookie):
        if not ended:
            ended.append(secret[len("choir-") : -44])
            async with Choir(live_mesh) as mesh:
                await mesh.keys(ManageKeys(action="revoke", id=ended[0]))
        elif name == "failed":
            ended.append(fields["message"])
    assert ended[1:] == ["the API key is not valid"]


def test_the_lines_of_a_request_lie_on_one_axis_and_every_moment_is_named() -> None:
    names = ("what", "service", "instance", "host", "task_id", "model", "round", "delivery")
    rows = [
        ("admit", "router", "r", "h", None, None, 1, 1, 10.0, 10.1, None),
        ("queue", "agent", "a", "h", "t", "one", 1, 1, 10.1, 10.2, None),
        ("generate", "agent", "a", "h", "t", "one", 1, 1, 10.2, 10.6, "4 tokens"),
        ("stage", "shard_stage", "s1", "g", None, "one stage 1", 1, 1, 10.2, 10.5, "4 steps"),
        ("generate", "agent", "a", "h", "t2", "one", 2, 1, 10.7, 11.0, None),
        ("replied", "router", "r", "h", None, None, 1, 1, 11.0, 11.0, None),
        ("replied", "router", "r", "h", None, None, 1, 1, 31.0, 31.0, None),  # somebody has fetched it later
    ]
    fall = waterfall("x", [*names, "started_s", "ended_s", "detail"], rows)
    assert fall is not None
    drawn = lines(fall)
    assert [line.name for line in drawn] == ["router", "one", "one stage 1", "one r2"]
    assert [(bar.kind, round(bar.start), round(bar.width)) for bar in drawn[1].bars] == [
        ("queue", 10, 10), ("eval", 20, 40),
    ]  # fmt: skip
    assert drawn[2].where == "g: s1"
    spent = costs(fall)
    assert round(sum(cost.percent for cost in spent)) == 100
    assert any(cost.gap for cost in spent)
