"""Something of the mesh is away: each page says what is missing, and keeps the rest."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import httpx
import pytest

from infra.broker.broker import Broker
from infra.testing.mesh import eventually
from infra.testing.plugin import SpawnService
from services.client.reliable_request import REPLY_MARGIN_S
from services.gateway.tests.serving import serving

MODEL = "alpha"
KEPT = {
    "/dashboard": "Below is what was seen last",
    "/dashboard/ask": "Tokens at most",
    "/dashboard/requests": "Over time",
    "/dashboard/nodes": "cordoned finishes what it has",
    "/dashboard/models": "What is loaded where",
    "/dashboard/pipelines": "Nodes that hold stages",
    "/dashboard/workers": "Add and test",
    "/dashboard/runs": "There are none in",
    "/dashboard/queries?query=activity": "A statement of your own",
    "/dashboard/admin": "Make a key",
}
"""A part of each page that needs nobody but the gateway."""
FIRST_LOOK = {"/dashboard": "Nothing has been seen of the mesh yet"}
ALONE = ("/dashboard/runs", "/dashboard/admin")
"""Those that say nothing at first: the runs are on disk, and who may do what comes a moment later."""


@pytest.fixture
def mesh_models() -> tuple[str, ...]:
    """The one that is asked."""
    return (MODEL,)


async def pages(http: httpx.AsyncClient) -> dict[str, str]:
    """All pages, as they are at one moment."""
    replies = await asyncio.gather(*(http.get(path) for path in KEPT))
    assert [reply.status_code for reply in replies] == [200] * len(KEPT)
    return {path: reply.text for path, reply in zip(KEPT, replies, strict=True)}


async def first_event(http: httpx.AsyncClient, path: str, words: str) -> str:
    """The first fragment of a live page that has the words."""
    async with http.stream("GET", path) as live:
        async for line in live.aiter_lines():
            if line.startswith("data: ") and words in (said := json.loads(line[6:]).get("html", "")):
                return str(said)
    raise AssertionError(words)


async def test_without_metrics_a_router_or_a_broker_every_page_says_so_and_has_the_rest(
    own_broker: Broker, spawn_service: SpawnService, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("services.client.client.CALL_PATIENCE_S", 0.2)  # a page asks for four seconds
    monkeypatch.setattr("services.client.client.REPLY_MARGIN_S", 30.0)  # who is there may be slow
    router = spawn_service("router", url=own_broker.url)
    agent = {"name": "attic", "backend": "instant", "models": [{"name": MODEL, "reply": "Paris"}]}
    spawn_service("agent", "attic", url=own_broker.url, agent=agent)
    settings = {"results": tmp_path / "results"}
    async with (
        serving(own_broker.url, **settings) as url,
        httpx.AsyncClient(base_url=url, timeout=120) as http,
    ):

        async def answered() -> str:
            body = {"prompt": "Capital?", "models": [MODEL]}
            told = (await http.post("/dashboard/ask/answers", json=body)).text
            return str(json.loads(told.split("data: ")[1].split("\n")[0])["link"]) if "Paris" in told else ""

        link = await eventually(answered)
        seen = await pages(http)
        for path in ("/dashboard/requests", "/dashboard/queries?query=activity"):
            assert "metrics" in seen[path] and 'role="alert"' in seen[path] and KEPT[path] in seen[path], path
        request = (await http.get(link)).text
        assert "Paris" in request and "times and events of this request are missing" in request
        assert "metrics" in (await http.get("/dashboard/charts/activity")).json()["words"]
        for path in ("/api/distributed/requests", "/api/distributed/metrics"):
            reply = await http.get(path)
            assert (reply.status_code, reply.json()["error"]["code"]) == (503, "mesh_unreachable")
            assert "give choir.toml a section [metrics]" in reply.json()["error"]["message"]
        told = (await http.get(f"/api/distributed/requests/{link.rpartition('/')[2]}")).json()
        assert told["text"] == "Paris" and told["waterfall"] is None
        assert told["waterfall_error"]["code"] == "mesh_unreachable"
        assert MODEL in seen["/dashboard"] and MODEL in seen["/dashboard/ask"]

        monkeypatch.setattr("services.client.client.REPLY_MARGIN_S", REPLY_MARGIN_S)
        for lost in (router.kill, own_broker.kill):
            lost()

            async def said() -> bool:  # the models of a moment ago are still known for a moment
                seen = await pages(http)
                assert all(FIRST_LOOK.get(path, kept) in seen[path] for path, kept in KEPT.items())
                return {path for path in KEPT if 'role="alert"' not in seen[path]} == set(ALONE)

            await eventually(said)
            keys = await first_event(http, "/dashboard/live/admin", "cannot be told")
            assert "The keys cannot be told" in keys
        await own_broker.restart()  # a gateway says goodbye to it
