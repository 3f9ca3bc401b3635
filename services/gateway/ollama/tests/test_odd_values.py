"""Each field of each body with each odd value: an answer or an error in words, and never a failure."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import httpx
import pytest
from nats.aio.client import Client
from pydantic_core import to_json

from schemas.commands import Ask
from schemas.errors import ChoirError
from schemas.replies import ModelSummary
from services.client.client import Choir
from services.gateway.http.body import checked, parse_object
from services.gateway.http.context import GatewayContext
from services.gateway.ollama.bodies import ChatBody, GenerateBody, chat_ask, generate_ask
from services.gateway.requests.models import Target
from services.gateway.settings import GatewaySection
from services.gateway.tests.serving import events_of

TOOL = {"type": "function", "function": {"name": "add", "parameters": {"type": "object"}}}
CALL = {"function": {"name": "add", "arguments": {"a": 1}}}
MESSAGE = {"role": "user", "content": "Hi", "images": [], "tool_calls": [], "tool_name": "", "thinking": ""}
OPTIONS = {
    "temperature": 0.5, "top_k": 1, "top_p": 0.5, "min_p": 0.1, "seed": 1, "num_predict": 1, "stop": ["x"],
    "repeat_penalty": 1.0, "presence_penalty": 0.0, "frequency_penalty": 0.0, "think": False, "num_ctx": 1,
}  # fmt: skip
GENERATION = {
    "model": "choir-one", "stream": False, "format": "", "options": OPTIONS, "keep_alive": "5m",
    "think": False, "logprobs": False, "top_logprobs": 0,
}  # fmt: skip
BODIES: dict[str, dict[str, Any]] = {
    "/api/chat": {**GENERATION, "messages": [MESSAGE], "tools": []},
    "/api/generate": {
        **GENERATION, "prompt": "Hi", "suffix": "", "system": "", "raw": False, "images": [], "context": [],
        "template": "",
    },
    "/api/embed": {"model": "choir-one", "input": "", "truncate": True, "dimensions": 8},
    "/api/embeddings": {"model": "choir-one", "prompt": ""},
    "/api/show": {"model": "choir-one", "name": "choir-one", "verbose": True},
    "/api/pull": {"model": "choir-one", "stream": False, "insecure": True},
    "/api/copy": {"source": "choir-one", "destination": "x"},
}  # fmt: skip
ODD: list[Any] = [
    None, True, 0, -1, 2**70, 1e308, 0.1, "", "\u0000\u202e", "choir-one", "x" * 3_000, [], [[]], [None], {},
    {"": {"": []}}, [{"role": "tool", "content": None}], [{"role": "assistant", "tool_calls": [CALL] * 3}],
    [TOOL], [TOOL, TOOL],
]  # fmt: skip


SETTINGS = GatewaySection()
SERVED = ModelSummary(name="choir-one", agents=("a",), slots=1, busy=0)
ONE = Target("choir-one:latest", "choir-one", (SERVED,))


def read_chat(context: GatewayContext, body: dict[str, Any]) -> Ask:
    return chat_ask(context, checked(body, ChatBody), ONE, "r")


def read_generate(context: GatewayContext, body: dict[str, Any]) -> Ask:
    return generate_ask(context, checked(body, GenerateBody), ONE, "r")


@pytest.mark.parametrize(("path", "read"), [("/api/chat", read_chat), ("/api/generate", read_generate)])
def test_no_value_of_any_field_is_a_failure(
    path: str, read: Callable[[GatewayContext, dict[str, Any]], Ask]
) -> None:
    client = Client()
    context = GatewayContext(Choir(), SETTINGS, client, events_of(client))
    assert read(context, BODIES[path])
    understood = 0
    for body in with_odd_values(BODIES[path]):
        try:
            read(context, parse_object(to_json(body)))
            understood += 1
        except ChoirError as error:
            assert error.message and "pydantic" not in error.message
    assert understood > 50


def with_odd_values(body: dict[str, Any]) -> Iterator[dict[str, Any]]:
    for value in ODD:
        for field in body:
            yield {**body, field: value}
        for option in OPTIONS:
            yield {**body, "options": {**OPTIONS, option: value}}
        for part in MESSAGE if "messages" in body else ():
            yield {**body, "messages": [{**MESSAGE, part: value}]}


@pytest.mark.parametrize("path", [path for path in BODIES if path not in ("/api/chat", "/api/generate")])
async def test_a_value_that_cannot_be_is_an_error_in_words(http: httpx.AsyncClient, path: str) -> None:
    for field in BODIES[path]:
        for value in ODD[:16]:
            reply = await http.post(path, json={**BODIES[path], field: value})
            assert reply.status_code in (200, 400, 404, 501), (reply.text, field, value)
            assert reply.status_code == 200 or isinstance(reply.json()["error"], str)
