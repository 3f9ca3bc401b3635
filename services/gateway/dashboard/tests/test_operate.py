"""Pages that change the mesh: what they do, whom they refuse, and what they do not do."""

from __future__ import annotations

import asyncio
import json
import re
import socket
import time
from pathlib import Path
from typing import Any

import httpx
import pytest
from nats.aio.client import Client

from infra.members.tests.desks import start_desk
from infra.testing.mesh import DEADLINE_S, eventually
from schemas import subjects
from schemas.nodes.joining import Host, HostedInstance
from schemas.requests.keys import KEY_SCOPES
from schemas.requests.tenants import Tenant
from services.client.finding.invite_line import parse_line
from services.gateway.access.fresh_login import login_of
from services.gateway.access.tests.conftest import MakeKey, bearer, logged_in
from services.gateway.distributed import managing
from services.gateway.tests.serving import serving

PAGES = tuple(f"/dashboard/{name}" for name in ("nodes", "models", "workers", "pipelines", "admin"))
ACTIONS: dict[str, dict[str, Any]] = {
    "/dashboard/actions/workers/add": {},
    "/dashboard/actions/workers/change": {"id": "nobody", "action": "cordon"},
    "/dashboard/actions/nodes/change": {"instance": "nobody", "action": "drain"},
    "/dashboard/actions/models/change": {"action": "cancel"},
    "/dashboard/actions/models/load": {"action": "load", "model": "nobody"},
    "/dashboard/actions/hosts/revoke": {"name": "Not a name"},
    "/dashboard/actions/pipelines/plan": {"model": "nothing"},
    "/dashboard/actions/pipelines/place": {"model": "nothing"},
    "/dashboard/actions/keys/add": {"scopes": []},
    "/dashboard/actions/invites/add": {"kind": "host", "name": "Not a name"},
    "/dashboard/actions/tenants/change": {"name": "nobody", "action": "limit"},
    "/dashboard/actions/keys/end": {"id": "k-nobody", "action": "revoke"},
}
"""Every action, with a body that the mesh refuses, so that it changes nothing."""


async def test_what_operates_the_mesh_needs_a_login_that_is_fresh(
    live_mesh: str, locked: httpx.AsyncClient, make_key: MakeKey
) -> None:
    secret, other = await make_key(scopes=KEY_SCOPES), await make_key(scopes=KEY_SCOPES)
    now_s = time.time()
    stale = {
        "long ago": logged_in(secret, now_s - 901),
        "to come": logged_in(secret, now_s + 3_600),
        "another key's": {"cookie": f"choir_key={secret}; choir_login={login_of(other, now_s)}"},
        "not signed": {"cookie": f"choir_key={secret}; choir_login={int(now_s)}."},
        "no number": {"cookie": f"choir_key={secret}; choir_login=\u0662.x"},
        "none": {"cookie": f"choir_key={secret}"},
    }
    pages = ("/dashboard/admin", "/dashboard/live/admin", "/dashboard/models", "/dashboard/workers")
    for words, said in stale.items():
        sent = {name.encode(): value.encode() for name, value in said.items()}
        for path, body in ACTIONS.items():
            reply = await locked.post(path, json=body, headers=sent)
            assert reply.status_code == 401 and "login is not fresh" in reply.text, (words, path)
        for path in pages:
            reply = await locked.get(path, headers=sent)
            assert reply.status_code == 401 and 'class="login"' in reply.text, (words, path)
        # And what only looks goes on, with the way to the pages where one logs in again
        mesh = await locked.get("/dashboard/nodes", headers=sent)
        assert mesh.status_code == 200 and 'href="/dashboard/admin"' in mesh.text, words
        assert "/dashboard/actions/nodes" in mesh.text, words

    # When the key is shown again
    login = await locked.post("/dashboard/login", json={"key": secret})
    cookies = {one.partition(";")[0] for one in login.headers.get_list("set-cookie")}
    assert all(f"; {word}" in login.headers["set-cookie"].lower() for word in ("httponly", "samesite=strict"))
    locked.cookies.clear()
    fresh = {"cookie": "; ".join(sorted(cookies))}
    # Then it opens them, and a program that shows its key with each request needs no login
    for headers in (fresh, bearer(secret), logged_in(secret, now_s - 60)):
        assert (await locked.get("/dashboard/admin", headers=headers)).status_code == 200
        action = "/dashboard/actions/keys/end"
        assert (await locked.post(action, json=ACTIONS[action], headers=headers)).status_code == 400
    # And where no keys are needed there is nobody to log in
    async with serving(live_mesh) as url, httpx.AsyncClient(base_url=url, timeout=60) as open_to_all:
        assert (await open_to_all.get("/dashboard/admin")).status_code == 200


async def test_a_page_of_operators_that_is_left_open_shows_no_more_when_its_login_is_old(
    live_mesh: str, make_key: MakeKey
) -> None:
    secret = await make_key(scopes=KEY_SCOPES)
    async with (
        asyncio.timeout(DEADLINE_S),
        serving(live_mesh, keys_required=True, login_fresh_s=3.0) as url,
        httpx.AsyncClient(base_url=url, timeout=DEADLINE_S) as http,
    ):
        status, told = 401, ""
        while status == 401:  # a machine that stood still meanwhile has made the login old
            headers = logged_in(secret)
            async with http.stream("GET", "/dashboard/live/workers", headers=headers) as live:
                status, told = live.status_code, (await live.aread()).decode()
    assert status == 200 and "event: fragment" in told
    assert told.rstrip().splitlines()[-2] == "event: failed" and "login is not fresh" in told


async def test_every_action_is_refused_to_who_may_only_look_and_to_other_pages(
    locked: httpx.AsyncClient, make_key: MakeKey
) -> None:
    described = (await locked.get("/openapi.json", headers={"x-api-key": await make_key()})).json()["paths"]
    assert set(ACTIONS) == {path for path in described if path.startswith("/dashboard/actions")}
    looks = logged_in(await make_key(scopes=("observe", "generate")))
    operates = logged_in(await make_key(scopes=("observe", "operate")))
    own = {"origin": str(locked.base_url).rstrip("/")}
    for path, body in ACTIONS.items():
        assert (await locked.post(path, json=body)).status_code == 401, path
        assert (await locked.post(path, json=body, headers=looks | own)).status_code == 403, path
        elsewhere = operates | {"origin": "http://127.0.0.1:1"}
        refused = await locked.post(path, json=body, headers=elsewhere)
        assert refused.status_code == 403 and "only pages of this gateway" in refused.text, path
        text = await locked.post(path, content="{}", headers=operates | own)
        assert text.status_code == 415, path
        asked = await locked.post(path, json=body, headers=operates | own)
        assert asked.status_code in (400, 404), (path, asked.status_code)
        assert (await locked.get(path, headers=operates)).status_code in (404, 405), path
    for page in ("/dashboard/workers", "/dashboard/models", "/dashboard/admin"):
        assert (await locked.get(page, headers=looks)).status_code == 403, page
    for page in ("/dashboard/pipelines", "/dashboard/nodes"):
        shown = (await locked.get(page, headers=looks)).text
        assert "/dashboard/admin" not in shown and "/dashboard/actions" not in shown, page
    for page in PAGES:
        assert (await locked.get(page, headers=operates)).status_code == 200, page


async def test_a_key_is_shown_once_used_and_revoked(locked: httpx.AsyncClient, make_key: MakeKey) -> None:
    operates = logged_in(await make_key(scopes=("models", "observe", "operate")))
    body = {"label": "<b>mine</b>", "scopes": ["models"], "limits": {"requests_in_flight": 2}, "days": 1}
    made = (await locked.post("/dashboard/actions/keys/add", json=body, headers=operates)).json()
    found = re.search(r"choir-k-[0-9a-f]{8}-[A-Za-z0-9_-]{43}", made["html"])
    assert found is not None and "&lt;b&gt;mine" in made["put"]["keys"]
    secret, key_id = found[0], found[0].removeprefix("choir-")[:10]
    assert secret not in (await locked.get("/dashboard/admin", headers=operates)).text
    ended = await locked.post(
        "/dashboard/actions/keys/end", json={"id": key_id, "action": "revoke"}, headers=operates
    )
    assert ended.json()["words"] == f"{key_id} opens nothing any more"
    forgotten = await locked.post(
        "/dashboard/actions/keys/end", json={"id": key_id, "action": "remove"}, headers=operates
    )
    assert key_id not in forgotten.json()["put"]["keys"]


async def test_a_key_makes_none_that_may_do_more_than_itself(
    locked: httpx.AsyncClient, make_key: MakeKey
) -> None:
    limits: dict[str, Any] = {
        "requests_in_flight": 2,
        "tokens_per_minute": 100,
        "requests_per_minute": 10,
        "batch_share": 0.5,
    }
    own = await make_key(
        scopes=("generate", "operate"),
        models=("choir-one",),
        limits=limits,
        priority="batch",
        expires_at_s=time.time() + 3600,
    )
    operates = logged_in(own)
    within = {
        "scopes": ["generate"],
        "models": ["choir-one"],
        "limits": limits,
        "priority": "batch",
        "days": 0.01,
    }
    assert (await add_key(locked, operates, within)).status_code == 200
    for field, value, named in (
        ("scopes", ["generate", "observe"], "scopes"),
        ("models", [], "models"),
        ("models", ["choir-one", "choir-two"], "models"),
        ("days", None, "expires_at_s"),
        ("days", 1, "expires_at_s"),
        ("limits", {"tokens_per_minute": 100}, "limits.requests_in_flight"),
        ("limits", limits | {"tokens_per_minute": 101}, "limits.tokens_per_minute"),
        ("limits", limits | {"requests_per_minute": 11}, "limits.requests_per_minute"),
        ("limits", limits | {"batch_share": 0.6}, "limits.batch_share"),
        ("priority", "interactive", "priority"),
    ):
        refused = await add_key(locked, operates, within | {field: value})
        assert refused.status_code == 403, (field, refused.text)
        assert named in refused.text


async def add_key(http: httpx.AsyncClient, headers: dict[str, str], body: dict[str, Any]) -> httpx.Response:
    """What is said to the wish for a key."""
    return await http.post("/dashboard/actions/keys/add", json=body, headers=headers)


async def shown(http: httpx.AsyncClient, words: str, absent: str) -> bool:
    """Whether the page of workers says so; a page hears of a change a moment after it was made."""
    page = (await http.get("/dashboard/workers")).text
    return words in page and absent not in page


async def test_a_worker_is_added_with_a_test_cordoned_and_removed(
    http: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(managing, "TRIED_WITHIN_S", 0.3)
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    body = {"id": "mac-7", "type": "ollama", "host": "127.0.0.1", "port": port, "model": "gamma"}
    added = (await http.post("/dashboard/actions/workers/add", json=body)).json()
    assert added["words"].startswith("mac-7 is registered")
    for action, there, absent in (
        ("cordon", "drained", "nobody uses it"),
        ("uncordon", "mac-7", "drained"),
        ("remove", "no external workers", "mac-7"),
    ):
        done = await http.post("/dashboard/actions/workers/change", json={"id": "mac-7", "action": action})
        assert done.status_code == 200, done.text
        await eventually(lambda there=there, absent=absent: shown(http, there, absent))  # type: ignore[misc]


async def test_a_plan_that_cannot_be_is_refused_with_its_reason(http: httpx.AsyncClient) -> None:
    reply = await http.post("/dashboard/actions/pipelines/plan", json={"model": "choir-one", "stages": 2})
    assert reply.status_code in (400, 404) and "choir-one" in reply.text
    assert "No model runs in stages" in (await http.get("/dashboard/pipelines")).text


async def test_a_line_that_lets_somebody_in_is_shown_once(
    connection: Client, mesh_url: str, tmp_path: Path
) -> None:
    await start_desk(connection, tmp_path / "state")
    async with serving(mesh_url) as url, httpx.AsyncClient(base_url=url, timeout=60) as http:
        invites = "/dashboard/actions/invites/add"
        body = {"kind": "person", "name": "alice", "role": "observe", "hours": 2}
        made = (await http.post(invites, json=body)).json()
        typed = re.search(r"choir1-[A-Za-z0-9_-]+", made["html"])
        assert typed is not None and "good once within 2 h" in made["html"]
        line = parse_line(typed[0])
        assert (line.kind, line.name, line.addresses) == ("person", "alice", ("127.0.0.1:4222",))
        assert "choir1-" not in (await http.get("/dashboard/admin")).text
        refused = await http.post(invites, json={**body, "hours": 10_000})
        assert refused.status_code == 400 and "at most 7.5 days" in refused.text


async def live_part(http: httpx.AsyncClient, element: str, words: str) -> str:
    """What the live page of Admin puts into an element, as soon as it says so."""
    async with asyncio.timeout(DEADLINE_S), http.stream("GET", "/dashboard/live/admin") as live:
        async for line in live.aiter_lines():
            part = json.loads(line[6:]) if line.startswith("data: ") else {}
            if part.get("id") == element and words in part["html"]:
                return str(part["html"])
    raise AssertionError(words)


async def test_a_tenant_is_limited_and_let_in_no_more_and_so_is_a_host(
    connection: Client, mesh_url: str, tmp_path: Path
) -> None:
    bucket = await connection.jetstream().key_value(subjects.TENANTS_BUCKET)
    await bucket.put(subjects.tenant_key("alice"), Tenant(name="alice").to_bytes())
    hosts = await connection.jetstream().key_value(subjects.HOSTS_BUCKET)
    mine = HostedInstance(service="agent", name="attic-agent", public_key="U" + "B" * 55)
    host = Host(name="attic", public_key="U" + "A" * 55, instances=(mine,), created_at_s=1e9)
    await hosts.put(subjects.host_key("attic"), host.to_bytes())
    await start_desk(connection, tmp_path / "state")
    async with serving(mesh_url) as url, httpx.AsyncClient(base_url=url, timeout=60) as http:
        change = "/dashboard/actions/tenants/change"
        assert "Set the limits of alice" in (await http.get("/dashboard/admin")).text
        limits = {"requests_in_flight": 3}
        body = {"name": "alice", "action": "limit", "limits": limits, "weight": 2}
        told = (await http.post(change, json=body)).json()
        assert told["words"] == "alice has these limits now" and 'value="3"' in told["put"]["tenants"]
        stored = Tenant.read((await bucket.get(subjects.tenant_key("alice"))).value or b"")
        assert (stored.limits.requests_in_flight, stored.weight) == (3, 2.0)
        ended = (await http.post(change, json={"name": "alice", "action": "revoke"})).json()
        assert ended["words"] == "alice is let in no more" and "alice" not in ended["put"]["tenants"]
        unknown = await http.post(change, json={"name": "bob", "action": "revoke"})
        assert unknown.status_code == 400 and "there is no tenant bob" in unknown.text
        html = await live_part(http, "hosts", 'aria-label="Revoke attic"')
        assert 'data-at="1000000000"' in html and "agent, shard stage, modelstore" in html
        assert "attic-agent" in html and "away" in html
        revoke = "/dashboard/actions/hosts/revoke"
        left = (await http.post(revoke, json={"name": "attic"})).json()
        assert left["words"] == "the host attic is let in no more" and "revoked" in left["put"]["hosts"]
        assert 'aria-label="Revoke attic"' not in left["put"]["hosts"]
        unknown = await http.post(revoke, json={"name": "cellar"})
        assert unknown.status_code == 400 and "cellar" in unknown.text
