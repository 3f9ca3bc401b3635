"""What clients of Ollama rely on, line by line."""

from __future__ import annotations

import json
import re
from typing import Any

import httpx
import pytest

CHAT = {"model": "choir-one", "messages": [{"role": "user", "content": "Capital?"}]}


async def test_a_version_is_digits_and_dots(http: httpx.AsyncClient) -> None:
    version = (await http.get("/api/version")).json()["version"]
    assert re.fullmatch(r"\d+(\.\d+)+", version)


@pytest.mark.parametrize("path", ["/", "/api/tags", "/api/version", "/api/ps"])
async def test_a_head_is_answered_without_a_body(http: httpx.AsyncClient, path: str) -> None:
    reply = await http.head(path)
    assert (reply.status_code, reply.content) == (200, b"")
    assert (await http.get(path)).content


@pytest.mark.parametrize("path", ["/ollama/api/chat", "/api/api/chat", "/v1/api/chat"])
async def test_a_prefix_too_many_does_no_harm(http: httpx.AsyncClient, path: str) -> None:
    assert (await http.post(path, json={**CHAT, "stream": False})).json()["message"]["content"] == "Paris"


@pytest.mark.parametrize("path", ["/api/push", "/api/me"])
async def test_the_command_says_why_it_pushes_nothing(http: httpx.AsyncClient, path: str) -> None:
    # Since 0.32 it asks before a push who the user is.
    reply = await http.post(path, json={"model": "choir-one"})
    assert (reply.status_code, "choir.toml" in reply.json()["error"]) == (501, True)


async def test_each_line_is_one_object_with_content(http: httpx.AsyncClient) -> None:
    reply = await http.post("/api/chat", json=CHAT)
    assert reply.headers["content-type"] == "application/x-ndjson"
    assert reply.headers["choir-request-id"]
    lines = reply.text.split("\n")
    assert lines.pop() == "" and "" not in lines
    objects = [json.loads(line) for line in lines]
    assert all(isinstance(each["message"]["content"], str) for each in objects)
    assert not any("type" in each for each in objects)
    assert objects[-1]["done_reason"] == "stop"


@pytest.mark.parametrize("key", ["model", "name"])
async def test_a_model_is_named_under_either_key(http: httpx.AsyncClient, key: str) -> None:
    for path in ("/api/show", "/api/pull"):
        assert (await http.post(path, json={key: "choir-one"})).status_code == 200
    assert (await http.request("DELETE", "/api/delete", json={key: "nobody"})).status_code == 404


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [("GET", "/api/nothing", 404), ("GET", "/api/chat", 405), ("POST", "/nothing", 404), ("PUT", "/", 405)],
)
async def test_a_path_that_there_is_not_is_an_error_in_words(
    http: httpx.AsyncClient, method: str, path: str, status: int
) -> None:
    reply = await http.request(method, path)
    assert reply.status_code == status
    assert isinstance(reply.json()["error"], str)


@pytest.mark.parametrize(
    ("changed", "field"),
    [
        ({"model": None}, "model"),
        ({"model": 7}, "model"),
        ({"messages": "hello"}, "messages"),
        ({"messages": [{"role": "nobody", "content": "x"}]}, "messages.0.role"),
        ({"messages": [{"content": "x"}]}, "messages.0.role"),
        ({"stream": "yes"}, "stream"),
        ({"format": "xml"}, "format"),
        ({"options": []}, "options"),
        ({"options": {"temperature": "hot"}}, "options.temperature"),
        ({"options": {"temperature": 1e308}}, "temperature"),
        ({"options": {"num_predict": 1.5}}, "options.num_predict"),
        ({"options": {"stop": [1]}}, "options.stop"),
        ({"think": "much"}, "think"),
        ({"top_logprobs": 21, "logprobs": True}, "top_logprobs"),
        ({"tools": [{"type": "function"}]}, "tools.0.function"),
        ({"messages": [{"role": "user", "content": "x", "images": ["http://inside/x.png"]}]}, "images"),
    ],
)
async def test_a_wrong_type_is_a_400_that_names_the_field(
    http: httpx.AsyncClient, changed: dict[str, Any], field: str
) -> None:
    reply = await http.post("/api/chat", json={**CHAT, **changed})
    assert reply.status_code == 400, reply.text
    assert field in reply.json()["error"]


NESTED = b'{"a":' * 90 + b"1" + b"}" * 90


@pytest.mark.parametrize(
    "body",
    [b"{", b"[]", b'"x"', b"null", rb'{"model": "\ud800"}', b'{"n": NaN}', b"{" * 100_000, NESTED],
)
async def test_a_body_that_is_no_object_is_a_400(http: httpx.AsyncClient, body: bytes) -> None:
    for path in ("/api/chat", "/api/show", "/api/embed"):
        reply = await http.post(path, content=body)
        assert reply.status_code == 400
        assert isinstance(reply.json()["error"], str)


async def test_what_nobody_knows_is_passed_over(http: httpx.AsyncClient) -> None:
    more = {"options": {"mirostat": 2, "num_ctx": 4096, "num_gpu": -1}, "keep_alive": "5m", "metadata": {}}
    reply = await http.post("/api/chat", json={**CHAT, **more, "stream": False, "format": ""})
    assert reply.json()["message"]["content"] == "Paris"


async def test_thoughts_are_refused_where_a_model_has_none(http: httpx.AsyncClient) -> None:
    for body in ({**CHAT, "think": False}, {**CHAT, "options": {"think": False}}):
        assert (await http.post("/api/chat", json=body)).status_code == 200


async def test_texts_without_words_have_no_vectors(http: httpx.AsyncClient) -> None:
    for given in ("", [], [""]):
        reply = await http.post("/api/embed", json={"model": "choir-one", "input": given})
        assert reply.json() == {"model": "choir-one", "embeddings": []}
    refused = await http.post("/api/embed", json={"model": "choir-one", "input": "hello"})
    assert (refused.status_code, "vectors" in refused.json()["error"]) == (400, True)
    ensemble = await http.post("/api/embeddings", json={"model": "choir/majority", "prompt": "hello"})
    assert (ensemble.status_code, "ensemble" in ensemble.json()["error"]) == (400, True)


async def test_an_embedding_of_an_unknown_model_is_a_404(http: httpx.AsyncClient) -> None:
    assert (await http.post("/api/embed", json={"model": "nobody", "input": "x"})).status_code == 404
