"""The mesh for its operators, over HTTP."""

from __future__ import annotations

from collections.abc import AsyncIterator

import httpx
import pytest
import pytest_asyncio

from infra.testing.choir_up import QUARTET
from infra.testing.mesh import eventually
from schemas.replies import ModelQueue, StatusReply
from services.client.client import Choir
from services.gateway.distributed.looking_back import FIGURES
from services.gateway.http.figures import MOST_NAMES, OTHERS, Figures, exposition
from services.gateway.tests.serving import serving

REQUESTS = "/api/distributed/requests"


@pytest_asyncio.fixture
async def http(live_mesh: str) -> AsyncIterator[httpx.AsyncClient]:
    """A client of a gateway."""
    async with (
        serving(live_mesh, sets={"four": QUARTET}) as url,
        httpx.AsyncClient(base_url=url, timeout=60) as client,
    ):
        yield client


async def test_what_runs_is_told(http: httpx.AsyncClient) -> None:
    status = (await http.get("/api/distributed/status")).json()
    assert status["services"]["router"] == 1
    nodes = (await http.get("/api/distributed/nodes")).json()["nodes"]
    assert {node["service"] for node in nodes} >= {"router", "agent", "aggregator"}
    models = (await http.get("/api/distributed/models")).json()
    assert "choir-one" in [model["name"] for model in models["models"]]
    four = next(each for each in models["ensembles"] if each["name"] == "choir/majority@four")
    assert (four["strategy"], four["members"]) == ("majority", list(QUARTET))


async def test_a_request_is_told_with_its_answers_and_votes(http: httpx.AsyncClient) -> None:
    body = {"model": "choir/majority@four", "prompt": "Capital of France?", "stream": False}
    asked = await http.post("/api/generate", json=body)
    told = (await http.get(f"/api/distributed/requests/{asked.headers['choir-request-id']}")).json()
    assert told["text"] == asked.json()["response"]
    assert {answer["agent"] for answer in told["answers"]} == set(QUARTET)
    assert len(told["decisions"][0]["votes"]) == 4


async def test_a_request_is_told_with_the_time_of_each_hop(http: httpx.AsyncClient) -> None:
    body = {"model": "choir/majority@four", "prompt": "Capital of Spain?", "stream": False}
    asked = await http.post("/api/generate", json=body)
    path = f"/api/distributed/requests/{asked.headers['choir-request-id']}"
    told = {}

    async def is_whole() -> bool:  # events are told a moment later, by each service its own
        told.update((await http.get(path)).json())
        fall = told["waterfall"]
        telling = {piece["service"] for piece in fall["pieces"]} if fall else set()
        return {"router", "agent", "aggregator"} <= telling and bool(fall["outcome"] == "answered")

    await eventually(is_whole)
    fall = told["waterfall"]
    assert "waterfall_error" not in told and len(told["answers"]) == 4
    assert {piece["model"] for piece in fall["pieces"] if piece["what"] == "generate"} <= set(QUARTET)
    assert all(piece["started_ms"] >= 0 for piece in fall["pieces"])
    assert sum(share["ms"] for share in fall["breakdown"]) == pytest.approx(fall["total_ms"], abs=0.01)


async def test_a_request_that_failed_has_its_way_beside_its_error(
    http: httpx.AsyncClient, live_mesh: str
) -> None:
    async with Choir(live_mesh) as mesh:
        request_id = await mesh.submit("When?", model="choir-slow")
        path = f"/api/distributed/requests/{request_id}"

        async def has_way() -> bool:
            reply = await http.get(path)
            assert (reply.status_code, reply.json()["error"]["code"]) == (409, "not_ready")
            return bool(reply.json().get("waterfall"))

        await eventually(has_way)
        await mesh.cancel(request_id)

    async def is_over() -> bool:
        reply = await http.get(path)
        assert reply.status_code == 499 and reply.json()["error"]["code"] == "cancelled"
        return bool(reply.json()["waterfall"]["outcome"].startswith("failed"))

    await eventually(is_over)


async def test_requests_are_listed_the_newest_first_as_far_as_is_asked(http: httpx.AsyncClient) -> None:
    ids = []
    for model in ("choir-one", "choir-two", "choir-one", "nobody"):
        reply = await http.post("/api/generate", json={"model": model, "prompt": "x", "stream": False})
        ids.append(reply.headers.get("choir-request-id"))
    first, second, third, refused = ids
    assert refused is None

    async def listed(**query: object) -> list[dict[str, object]]:
        reply = await http.get(REQUESTS, params=query)  # type: ignore[arg-type]
        assert reply.status_code == 200, reply.text
        return list(reply.json()["requests"])

    async def are_told() -> bool:
        rows = await listed(state="answered", limit=3)
        return [row["request_id"] for row in rows] == [third, second, first]

    await eventually(are_told)
    row = (await listed(limit=1))[0]
    assert (row["request_id"], row["tenant"], row["status"]) == (third, "local", "answered")
    assert (row["models"], row["topology"], row["error_code"]) == (["choir-one"], "single", None)
    assert row["total_ms"] is not None and row["generated_tokens"] is not None
    assert [one["request_id"] for one in await listed(model="choir-one", limit=2)] == [third, first]
    assert [one["request_id"] for one in await listed(id=second)] == [second]
    assert await listed(id=second, state="failed") == []
    assert await listed(id=second, tenant="physics") == []
    assert await listed(id=second, strategy="majority") == []
    assert await listed(id=second, within_s=0.000001) == []
    for query, field in (
        ({"limit": 0}, "limit"),
        ({"limit": 10**9}, "limit"),
        ({"state": "lost"}, "state"),
        ({"within_s": "nan"}, "within_s"),
        ({"modell": "x"}, "modell"),
    ):
        reply = await http.get(REQUESTS, params=query)
        assert (reply.status_code, reply.json()["error"]["field"]) == (400, field), query


async def test_figures_are_told_of_the_time_that_is_asked_for(http: httpx.AsyncClient) -> None:
    await http.post("/api/generate", json={"model": "choir-one", "prompt": "x", "stream": False})

    async def told() -> bool:
        figures = (await http.get("/api/distributed/metrics")).json()
        by_model = {row["model"] for row in figures["latency_by_model"]}
        return "choir-one" in by_model and figures["total"]["requests"] >= 1

    await eventually(told)
    figures = (await http.get("/api/distributed/metrics", params={"within_s": 3600})).json()
    assert {"since_s", "total", *FIGURES} == figures.keys()
    assert {"single"} <= {row["topology"] for row in figures["request_latency"]}
    none = (await http.get("/api/distributed/metrics", params={"within_s": 0.000001})).json()
    assert (none["total"]["requests"], none["latency_by_model"]) == (0, [])
    wrong = await http.get("/api/distributed/metrics", params={"within_s": "-1"})
    assert (wrong.status_code, wrong.json()["error"]["field"]) == (400, "within_s")


async def test_what_there_is_not_is_an_error_with_its_code(http: httpx.AsyncClient) -> None:
    unknown = await http.get("/api/distributed/requests/nobody-asked")
    assert (unknown.status_code, unknown.json()["error"]["code"]) == (404, "unknown_request")
    wrong = await http.get("/api/distributed/requests/a%20b")
    assert (wrong.status_code, wrong.json()["error"]["code"]) == (400, "invalid_request")
    path = await http.get("/api/distributed/nothing")
    assert (path.status_code, path.json()["error"]["code"]) == (404, "invalid_request")


async def test_requests_are_counted_for_prometheus(http: httpx.AsyncClient) -> None:
    await http.post("/api/generate", json={"model": "nobody", "prompt": "x"})
    await http.post(
        "/api/generate", json={"model": "choir-one", "prompt": "x", "stream": False, "options": {"tau": 1}}
    )
    hello = [{"role": "user", "content": "Hi"}]
    many = {f"field {number}": number for number in range(1_000)}
    for path in ("/v1/chat/completions", "/v1/messages"):
        body = {
            "model": "choir-one",
            "max_tokens": 1,
            "messages": hello,
            "service_tier": "auto",
            "api_base": 5,
        }
        assert (await http.post(path, json=body)).status_code == 200
    figures = (await http.get("/metrics")).text
    assert 'choir_gateway_requests_total{dialect="ollama",status="404"} 1\n' in figures
    assert 'choir_gateway_requests_total{dialect="ollama",status="200"} 1\n' in figures
    assert 'choir_gateway_options_passed_over_total{option="tau"} 1\n' in figures
    for name in ("service_tier", "api_base"):
        assert f'choir_gateway_fields_passed_over_total{{field="{name}"}} 2\n' in figures
    assert '{field="model"}' not in figures and '{field="messages"}' not in figures
    assert (await http.post("/api/show", json={"model": "choir-one", **many})).status_code == 200
    told = [line for line in (await http.get("/metrics")).text.splitlines() if "{field=" in line]
    assert len(told) == MOST_NAMES + 1 and sum(float(line.split()[-1]) for line in told) == 1_004
    assert "choir_up 1\n" in figures and "choir_slots " in figures


def test_names_that_clients_choose_are_bounded_and_do_no_harm() -> None:
    figures = Figures()
    for number in range(MOST_NAMES + 50):
        figures.pass_over(f'{number}"\n# TYPE x')
    assert len(figures.passed_over) == MOST_NAMES + 1
    assert figures.passed_over[OTHERS] == 50
    assert not figures.fields_passed_over
    queues = {'a"b\n# TYPE x': ModelQueue(waiting=2, in_work=1)}
    status = StatusReply(
        services={}, models=(), slots=0, busy=0, queued=0, results=0, problems=(), queues=queues
    )
    assert 'choir_model_waiting{model="a\\"b\\n# TYPE x"} 2\n' in exposition(figures, status)
    assert all(line.startswith(("#", "choir_")) for line in exposition(figures, status).splitlines())
