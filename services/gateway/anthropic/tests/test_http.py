"""Anthropic's interface over HTTP, before a real mesh of instant models."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import httpx
import pytest

from schemas.errors import Cancelled
from services.client import Choir
from services.gateway.anthropic.tests.asking import ask
from services.gateway.requests.identity import id_of_key
from services.gateway.tests.serving import accepted

PATH = "/v1/messages"


@pytest.mark.parametrize("model", ["choir-four", "choir/majority@four"])
async def test_a_message_and_its_stream_say_the_same(http: httpx.AsyncClient, model: str) -> None:
    whole = await http.post(PATH, json=ask(model))
    stream = await http.post(PATH, json=ask(model, stream=True))

    told = whole.json()
    assert (told["role"], told["stop_reason"], told["id"]) == (
        "assistant",
        "end_turn",
        f"msg_{whole.headers['request-id']}",
    )
    events = [json.loads(line[6:]) for line in stream.text.splitlines() if line.startswith("data: ")]
    kinds = [event["type"] for event in events if event["type"] != "ping"]
    assert kinds[:2] == ["message_start", "content_block_start"]
    assert kinds[-3:] == ["content_block_stop", "message_delta", "message_stop"]
    deltas = [event["delta"] for event in events if event["type"] == "content_block_delta"]
    assert "".join(delta["text"] for delta in deltas) == told["content"][0]["text"]
    assert events[-2]["usage"] == told["usage"]
    assert told["usage"]["output_tokens"] > 0


@pytest.mark.parametrize(
    ("body", "status", "kind", "words"),
    [
        (ask("nobody"), 404, "not_found_error", "nobody"),
        (ask("nobody", stream=True), 404, "not_found_error", "nobody"),
        ({"model": "choir-one", "messages": []}, 400, "invalid_request_error", "messages"),
        (ask("choir-short", "word " * 200), 400, "invalid_request_error", "prompt is too long"),
        ([], 400, "invalid_request_error", "object"),
    ],
)
async def test_errors_have_anthropics_form(
    http: httpx.AsyncClient, body: Any, status: int, kind: str, words: str
) -> None:
    reply = await http.post(PATH, json=body)

    told = reply.json()
    assert reply.status_code == status
    assert (told["type"], told["error"]["type"]) == ("error", kind)
    assert words in told["error"]["message"]


async def test_a_wrong_method_has_the_same_form(http: httpx.AsyncClient) -> None:
    reply = await http.get(PATH)

    assert (reply.status_code, reply.json()["type"]) == (405, "error")


async def test_who_hangs_up_cancels_the_work(http: httpx.AsyncClient, live_mesh: str) -> None:
    async with Choir(live_mesh) as mesh:
        headers = {"idempotency-key": "left alone"}
        waiting = asyncio.create_task(http.post(PATH, json=ask("choir-slow"), headers=headers))
        request_id = id_of_key("left alone", PATH, "")
        await accepted(mesh, request_id)
        waiting.cancel()

        with pytest.raises(Cancelled):
            await mesh.fetch(request_id, wait_s=30)
