"""Anthropic's Python client."""

from __future__ import annotations

import json
from importlib.metadata import version
from typing import Any

import anthropic
from harness import ASKED, CITY, TOO_LONG, WORDS, Mesh, cut, must_be_limited, must_fail, run, unheard, waits

TOLD = {"max_tokens": 48, "messages": ASKED, "extra_body": {"temperature": 0}}
WEATHER = {"name": "weather", "description": "Tells the weather.", "input_schema": CITY}


def client(mesh: Mesh) -> anthropic.Anthropic:
    return anthropic.Anthropic(base_url=mesh.address, api_key="any", max_retries=0, timeout=120)


def plain(mesh: Mesh) -> str:
    one = client(mesh)
    for name in (mesh.model, mesh.ensemble):
        reply = one.messages.create(model=name, **TOLD)
        assert reply.content[0].text and reply.usage.output_tokens
        assert reply.stop_reason in ("end_turn", "max_tokens")
    assert one.messages.count_tokens(model=mesh.model, messages=ASKED, system="Be brief.").input_tokens > 8
    text = reply.content[0].text
    stopped = one.messages.create(model=mesh.model, stop_sequences=["a", "e", "i", "o"], **TOLD)
    assert (stopped.stop_reason, stopped.stop_sequence in ("a", "e", "i", "o")) == ("stop_sequence", True), (
        stopped
    )
    return text


def stream(mesh: Mesh) -> None:
    for name in (mesh.model, mesh.ensemble):
        whole = client(mesh).messages.create(model=name, **TOLD)
        with client(mesh).messages.stream(model=name, **TOLD) as events:
            text = "".join(events.text_stream)
            final = events.get_final_message()
        assert text == final.content[0].text == whole.content[0].text
        assert final.usage.output_tokens == whole.usage.output_tokens
        assert final.stop_reason == whole.stop_reason


def tools(mesh: Mesh) -> None:
    one = client(mesh)
    forced = {**TOLD, "tools": [WEATHER], "tool_choice": {"type": "any"}}
    called = one.messages.create(model=mesh.model, **forced)
    use = next(block for block in called.content if block.type == "tool_use")
    assert called.stop_reason == "tool_use" and use.input["city"] in ("Lima", "Paris")
    with one.messages.stream(model=mesh.model, **forced) as events:
        assert events.get_final_message().content[-1].input == use.input
    free = one.messages.create(model=mesh.caller, **{**TOLD, "tools": [WEATHER]})
    assert free.content[-1].input == {"city": "Paris"}, free
    result = {"type": "tool_result", "tool_use_id": use.id, "content": "sunny"}
    talk = [*ASKED, {"role": "assistant", "content": called.content}, {"role": "user", "content": [result]}]
    assert one.messages.create(model=mesh.model, max_tokens=16, messages=talk, tools=[WEATHER]).content


def schema(mesh: Mesh) -> str:
    formed = {"format": {"type": "json_schema", "schema": CITY}}
    reply = client(mesh).messages.create(model=mesh.model, output_config=formed, **TOLD)
    assert json.loads(reply.content[0].text)["city"] in ("Lima", "Paris")
    return reply.content[0].text


def unknown(mesh: Mesh) -> str:
    return must_fail(lambda: client(mesh).messages.create(model="nobody", **TOLD), "NotFoundError", "nobody")


def slowly(mesh: Mesh, **told: bool) -> Any:
    """What has a middle: nobody has asked it before."""
    asked = [{"role": "user", "content": unheard()}]
    return client(mesh).messages.create(model=mesh.slow, max_tokens=400, messages=asked, **told)


def hang_up(mesh: Mesh) -> None:
    with mesh.left():
        events = slowly(mesh, stream=True)
        next(iter(events))
        events.close()


def restart(mesh: Mesh) -> str:
    seen = cut(iter(slowly(mesh, stream=True)), mesh)
    text = mesh.asked_again(lambda: slowly(mesh).content[0].text)
    assert text == WORDS, text
    return seen


def oversize(mesh: Mesh) -> str:
    long = [{"role": "user", "content": TOO_LONG}]
    return must_fail(
        lambda: client(mesh).messages.create(model=mesh.model, max_tokens=8, messages=long),
        "BadRequestError",
        "tokens",
        "context",
    )


def limited(mesh: Mesh) -> str:
    one = anthropic.Anthropic(base_url=mesh.address, api_key=mesh.limited_key, max_retries=0)

    def ask() -> object:
        asked = [{"role": "user", "content": unheard()}]
        return one.messages.create(model=mesh.model, max_tokens=48, messages=asked)

    refused = must_be_limited(ask, "RateLimitError")
    assert isinstance(refused, anthropic.RateLimitError)
    return waits(refused.response.headers)


TALK = (plain, stream, tools, schema, unknown, hang_up, restart, oversize, limited)
run("anthropic", version("anthropic"), *TALK, missing="Anthropic's interface has no vectors")
