"""Nothing that a request says chooses where the gateway connects, or which template a prompt goes through."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
import pytest_asyncio

MESSAGES = [{"role": "user", "content": "Capital?"}]
BODIES: dict[str, dict[str, Any]] = {
    "/v1/chat/completions": {"messages": MESSAGES},
    "/v1/completions": {"prompt": "Capital?", "max_tokens": 5},
    "/v1/responses": {"input": "Capital?"},
    "/v1/messages": {"messages": MESSAGES, "max_tokens": 5},
    "/api/chat": {"messages": MESSAGES, "stream": False},
    "/api/generate": {"prompt": "Capital?", "stream": False},
}
"""What generates in each dialect, with the least that it takes."""
SECRET_TEMPLATE = "{% for x in range(9) %}never this {{ 7 * 7 }} {% endfor %}{{ .Prompt }}"


class Listener:
    """A server that nobody may reach: it counts who does."""

    def __init__(self) -> None:
        self.connections = 0
        self.url = ""

    async def on_connection(self, _reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Counts one."""
        self.connections += 1
        writer.close()


@pytest_asyncio.fixture
async def elsewhere() -> AsyncIterator[Listener]:
    """Where hostile requests would have the gateway connect."""
    listener = Listener()
    async with await asyncio.start_server(listener.on_connection, "127.0.0.1", 0) as server:
        listener.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        yield listener
    assert listener.connections == 0


def fields(url: str) -> dict[str, Any]:
    """What other gateways have let a client choose."""
    return {
        "api_base": url, "base_url": url, "api_key": "sk-x", "api_version": "1", "organization": url,
        "model_list": [{"model_name": "choir-one", "litellm_params": {"api_base": url}}],
        "user_config": {"model_list": [{"api_base": url}]}, "router": {"base_url": url}, "fallbacks": [url],
        "headers": {"host": url, "authorization": "Bearer x"}, "extra_headers": {"x-forwarded-host": url},
        "extra_body": {"api_base": url}, "extra_query": {"u": url}, "default_headers": {"x": url},
        "callbacks": [url], "webhook": url, "custom_llm_provider": "openai", "proxy": url,
        "mock_response": "never this", "chat_template": SECRET_TEMPLATE,
        "chat_template_kwargs": {"tools": SECRET_TEMPLATE, "x": "a" * 1000},
        "prompt_template": SECRET_TEMPLATE,
    }  # fmt: skip


def tokens_in(reply: Any) -> Any:
    """How many tokens the prompt had, as the dialect tells."""
    usage = reply.get("usage") or {}
    return usage.get("prompt_tokens") or usage.get("input_tokens") or reply.get("prompt_eval_count")


@pytest.mark.parametrize("path", BODIES)
async def test_addresses_and_templates_of_clients_are_not_used(
    http: httpx.AsyncClient, elsewhere: Listener, path: str
) -> None:
    body = {"model": "choir-one", **BODIES[path]}
    plain = await http.post(path, json=body)
    assert plain.status_code == 200 and tokens_in(plain.json()), plain.text
    # When all of them come at once, and each alone
    hostile = fields(elsewhere.url)
    for said in (hostile, *({name: value} for name, value in hostile.items())):
        reply = await http.post(path, json={**body, **said})
        # Then they are passed over, or the field is named, and the prompt is what it was
        assert reply.status_code in (200, 400), (said, reply.text)
        if reply.status_code == 400:
            assert next(iter(said)) in reply.text
            continue
        assert tokens_in(reply.json()) == tokens_in(plain.json()), said
        assert "never this" not in reply.text


@pytest.mark.parametrize("path", ["/api/chat", "/api/generate"])
async def test_a_template_of_ollama_s_is_not_taken(
    http: httpx.AsyncClient, elsewhere: Listener, path: str
) -> None:
    body = {"model": "choir-one", **BODIES[path]}
    plain = (await http.post(path, json=body)).json()
    reply = await http.post(path, json={**body, "template": SECRET_TEMPLATE})
    assert reply.status_code in (200, 400)
    assert reply.status_code == 400 or tokens_in(reply.json()) == tokens_in(plain)
    assert "never this" not in reply.text


async def test_a_model_is_made_of_nothing_that_a_client_names(
    http: httpx.AsyncClient, elsewhere: Listener
) -> None:
    for body in (
        {"model": "made", "from": elsewhere.url},
        {"model": "made", "from": "choir-one", "template": SECRET_TEMPLATE},
        {"model": "made", "modelfile": f"FROM {elsewhere.url}"},
        {"model": "made", "files": {"x.gguf": "sha256:../../../../etc/passwd"}},
    ):
        reply = await http.post("/api/create", json=body)
        assert 400 <= reply.status_code < 600 and reply.status_code != 500, reply.text
        assert isinstance(reply.json()["error"], str)


@pytest.mark.parametrize(
    "scheme", ["listener", "http://169.254.169.254/latest/meta-data/", "file:///etc/passwd", "gopher://x/"]
)
async def test_no_image_is_fetched(http: httpx.AsyncClient, elsewhere: Listener, scheme: str) -> None:
    url = elsewhere.url if scheme == "listener" else scheme
    part = {"type": "image_url", "image_url": {"url": url}}
    asked: dict[str, dict[str, Any]] = {
        "/v1/chat/completions": {"messages": [{"role": "user", "content": [part]}]},
        "/v1/responses": {
            "input": [{"role": "user", "content": [{"type": "input_image", "image_url": url}]}]
        },
        "/v1/messages": {
            "messages": [
                {"role": "user", "content": [{"type": "image", "source": {"type": "url", "url": url}}]}
            ],
            "max_tokens": 5,
        },
        "/api/chat": {"messages": [{"role": "user", "content": "x", "images": [url]}]},
        "/api/generate": {"prompt": "x", "images": [url]},
    }
    for path, body in asked.items():
        reply = await http.post(path, json={"model": "choir-one", **body})
        assert 400 <= reply.status_code < 500, (path, reply.text)
        assert reply.json()["error"], path
        assert "root:" not in reply.text


async def test_the_lines_of_a_batch_choose_no_address_either(
    http: httpx.AsyncClient, elsewhere: Listener
) -> None:
    lines = [
        {"custom_id": f"{number}", "method": "POST", "url": url, "body": {"model": "choir-one", **body}}
        for number, (url, body) in enumerate(
            (
                ("/v1/chat/completions", {**BODIES["/v1/chat/completions"], **fields(elsewhere.url)}),
                (f"{elsewhere.url}/v1/chat/completions", BODIES["/v1/chat/completions"]),
            )
        )
    ]
    content = "\n".join(map(json.dumps, lines)).encode()
    upload: dict[str, Any] = {"data": {"purpose": "batch"}, "files": {"file": ("in.jsonl", content)}}
    file = (await http.post("/v1/files", **upload)).json()["id"]
    asked = {"input_file_id": file, "endpoint": "/v1/chat/completions", "completion_window": "24h"}
    batch = (await http.post("/v1/batches", json=asked)).json()
    async with asyncio.timeout(180):
        while batch["status"] not in ("completed", "failed", "expired", "cancelled"):
            await asyncio.sleep(0.05)
            batch = (await http.get(f"/v1/batches/{batch['id']}")).json()
    for name in ("output_file_id", "error_file_id"):
        if batch.get(name):
            assert "never this" not in (await http.get(f"/v1/files/{batch[name]}/content")).text
