"""ollama-python."""

from __future__ import annotations

import json
from importlib.metadata import version

import ollama
from harness import (
    ASKED,
    CITY,
    LIMITED,
    QUESTION,
    TOO_LONG,
    WORDS,
    Mesh,
    cut,
    must_be_limited,
    must_fail,
    run,
    unheard,
)

GREEDY = {"temperature": 0, "num_predict": 48}


def weather(city: str) -> str:
    """Tells the weather.

    Args:
      city: where
    """
    return f"sunny in {city}"


def client(mesh: Mesh) -> ollama.Client:
    return ollama.Client(host=mesh.address)


def plain(mesh: Mesh) -> str:
    one = client(mesh)
    names = {model.model for model in one.list().models}
    assert f"{mesh.model}:latest" in names, names
    assert one.show(mesh.model).capabilities
    assert one.ps().models
    both = [one.chat(name, ASKED, options=GREEDY) for name in (mesh.model, mesh.ensemble)]
    assert all(reply.message.content and reply.done and reply.eval_count for reply in both), both
    assert one.generate(mesh.model, QUESTION, options=GREEDY).response == both[0].message.content
    return both[0].message.content or ""


def stream(mesh: Mesh) -> None:
    for name in (mesh.model, mesh.ensemble):
        whole = client(mesh).chat(name, ASKED, options=GREEDY)
        parts = list(client(mesh).chat(name, ASKED, options=GREEDY, stream=True))
        assert "".join(part.message.content or "" for part in parts) == whole.message.content
        assert parts[-1].done and parts[-1].eval_count == whole.eval_count


def tools(mesh: Mesh) -> None:
    one = client(mesh)
    for streamed in (False, True):
        reply = one.chat(mesh.caller, ASKED, tools=[weather], stream=streamed)
        replies = list(reply) if streamed else [reply]
        calls = [call for part in replies for call in part.message.tool_calls or ()]
        assert [(call.function.name, call.function.arguments) for call in calls] == [
            ("weather", {"city": "Paris"})
        ]
    answered = {"role": "tool", "tool_name": "weather", "content": weather("Paris")}
    called = {"role": "assistant", "content": "", "tool_calls": [call.model_dump() for call in calls]}
    after = one.chat(mesh.model, [*ASKED, called, answered], tools=[weather], options=GREEDY)
    assert after.message.content or after.message.tool_calls


def schema(mesh: Mesh) -> str:
    reply = client(mesh).chat(mesh.model, ASKED, format=CITY, options=GREEDY)
    assert json.loads(reply.message.content or "")["city"] in ("Lima", "Paris")
    loose = client(mesh).chat(mesh.model, ASKED, format="json", options=GREEDY)
    said = loose.message.content or ""  # a small model may go on in one string until its context is full
    assert said.lstrip().startswith("{") and (loose.done_reason == "length" or json.loads(said)), said
    return reply.message.content or ""


def embeddings(mesh: Mesh) -> None:
    two = client(mesh).embed(mesh.model, ["one", "two"]).embeddings
    assert len(two) == 2 and len(two[0]) == len(two[1]) > 8
    assert client(mesh).embeddings(mesh.model, "one").embedding


def unknown(mesh: Mesh) -> str:
    must_fail(lambda: client(mesh).show("nobody"), "nobody")
    must_fail(lambda: list(client(mesh).chat("nobody", ASKED, stream=True)), "nobody", "404")
    return must_fail(lambda: client(mesh).chat("nobody", ASKED), "nobody", "not found", "404")


def hang_up(mesh: Mesh) -> None:
    with mesh.left():
        pieces = client(mesh).chat(mesh.slow, ASKED, stream=True)
        next(pieces)
        pieces.close()


def restart(mesh: Mesh) -> str:
    seen = cut(client(mesh).chat(mesh.slow, ASKED, stream=True), mesh)
    text = mesh.asked_again(lambda: client(mesh).chat(mesh.slow, ASKED).message.content or "")
    assert text == WORDS, text
    return seen


def oversize(mesh: Mesh) -> str:
    long = [{"role": "user", "content": TOO_LONG}]
    must_fail(lambda: list(client(mesh).chat(mesh.model, long, stream=True)), "tokens", "context", "400")
    return must_fail(lambda: client(mesh).generate(mesh.model, TOO_LONG), "tokens", "context", "400")


def limited(mesh: Mesh) -> str:
    headers = {"authorization": f"Bearer {mesh.limited_key}"}
    one = ollama.Client(host=mesh.address, headers=headers)
    return str(must_be_limited(lambda: one.generate(mesh.model, unheard(), options=GREEDY), "429", LIMITED))


TALK = (plain, stream, tools, schema, embeddings, unknown, hang_up, restart, oversize, limited)
run("ollama-python", version("ollama"), *TALK)
