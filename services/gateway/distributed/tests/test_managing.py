"""External workers and pipelines over HTTP, before a real mesh."""

from __future__ import annotations

import socket
from typing import Any

import httpx
import pytest

from services.gateway.distributed import managing
from services.gateway.tests.conftest import gateway as gateway
from services.gateway.tests.conftest import http as http

WORKERS, PIPELINES = "/api/distributed/workers", "/api/distributed/pipelines"


def worker(**fields: Any) -> dict[str, Any]:
    """A worker at a port where nothing listens."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    return {
        "id": "mac-1",
        "type": "lm_studio",
        "host": "127.0.0.1",
        "port": port,
        "model": "beta",
        "note": "passed over",
        **fields,
    }


async def test_a_worker_is_added_with_whether_it_was_tried_until_it_is_removed(
    http: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Given a mesh whose agents may have tried the worker by then, or not yet
    monkeypatch.setattr(managing, "TRIED_WITHIN_S", 0.3)
    added = await http.post(WORKERS, json=worker())
    again = await http.post(WORKERS, json=worker())
    replaced = await http.post(WORKERS, json=worker(weight=3, replace=True))
    listed = (await http.get(WORKERS)).json()["workers"]
    cordoned = await http.post(f"{WORKERS}/mac-1/cordon")
    uncordoned = await http.post(f"{WORKERS}/mac-1/uncordon")
    removed = await http.delete(f"{WORKERS}/mac-1")
    gone = await http.delete(f"{WORKERS}/mac-1")

    assert added.status_code == replaced.status_code == 201
    assert added.json()["tried"] or added.json().get("held_by") is None
    assert (again.status_code, again.json()["error"]["code"]) == (400, "invalid_request")
    assert [(one["worker"]["id"], one["worker"]["weight"]) for one in listed] == [("mac-1", 3)]
    assert cordoned.json()["workers"][0]["worker"]["cordoned"] is True
    assert uncordoned.json()["workers"][0]["worker"]["cordoned"] is False
    assert removed.status_code == 200
    assert (gone.status_code, gone.json()["error"]["code"]) == (404, "unknown_worker")
    assert (await http.get(WORKERS)).json()["workers"] == []


@pytest.mark.parametrize(
    ("fields", "field"),
    [({"port": 0}, "port"), ({"id": "a b"}, "id"), ({"type": "teapot"}, "type"), ({"host": "a/b"}, "host")],
)
async def test_a_worker_that_cannot_be_is_refused_by_its_field(
    http: httpx.AsyncClient, fields: dict[str, Any], field: str
) -> None:
    reply = await http.post(WORKERS, json=worker(**fields))

    assert (reply.status_code, reply.json()["error"]["field"]) == (400, field)


async def test_pipelines_are_listed_and_the_planners_refusals_are_told(http: httpx.AsyncClient) -> None:
    listed = await http.get(PIPELINES)
    unknown = await http.post(PIPELINES, json={"model": "nobody"})
    wrong = await http.post(PIPELINES, json={"model": "nobody", "stages": 0})
    gone = await http.delete(f"{PIPELINES}/nobody")

    assert listed.json() == {"pipelines": []}
    for reply in (unknown, gone):
        assert 400 <= reply.status_code < 500, reply.text
        assert "nobody" in reply.json()["error"]["message"]
    assert (wrong.status_code, wrong.json()["error"]["field"]) == (400, "stages")
