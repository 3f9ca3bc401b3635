"""The mesh for its operators, over HTTP."""

from __future__ import annotations

from collections.abc import AsyncIterator

import httpx
import pytest_asyncio

from infra.testing.choir_up import QUARTET
from schemas.replies import ModelQueue, StatusReply
from services.gateway.http.figures import MOST_NAMES, OTHERS, Figures, exposition
from services.gateway.tests.serving import serving


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
    figures = (await http.get("/metrics")).text
    assert 'choir_gateway_requests_total{dialect="ollama",status="404"} 1\n' in figures
    assert 'choir_gateway_requests_total{dialect="ollama",status="200"} 1\n' in figures
    assert 'choir_gateway_options_passed_over_total{option="tau"} 1\n' in figures
    assert "choir_up 1\n" in figures and "choir_slots " in figures


def test_names_that_clients_choose_are_bounded_and_do_no_harm() -> None:
    figures = Figures()
    for number in range(MOST_NAMES + 50):
        figures.pass_over(f'{number}"\n# TYPE x')
    assert len(figures.passed_over) == MOST_NAMES + 1
    assert figures.passed_over[OTHERS] == 50
    queues = {'a"b\n# TYPE x': ModelQueue(waiting=2, in_work=1)}
    status = StatusReply(
        services={}, models=(), slots=0, busy=0, queued=0, results=0, problems=(), queues=queues
    )
    assert 'choir_model_waiting{model="a\\"b\\n# TYPE x"} 2\n' in exposition(figures, status)
    assert all(line.startswith(("#", "choir_")) for line in exposition(figures, status).splitlines())
