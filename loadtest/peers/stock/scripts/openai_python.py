"""openai-python: chat, parse, tools, completions, embeddings, responses, files and batches."""

from __future__ import annotations

import io
import json
import time
from importlib.metadata import version
from typing import Literal

import openai
from harness import (
    ASKED,
    CITY,
    QUESTION,
    TOO_LONG,
    WORDS,
    Mesh,
    cut,
    must_be_limited,
    must_fail,
    run,
    unheard,
    waits,
)
from pydantic import BaseModel

GREEDY = {"temperature": 0, "max_tokens": 48}
WEATHER = {"type": "function", "function": {"name": "weather", "parameters": CITY}}
FORCED = {"type": "function", "function": {"name": "weather"}}
BATCH_DEADLINE_S = 60.0


class City(BaseModel):
    city: Literal["Lima", "Paris"]


def client(mesh: Mesh, retries: int = 0) -> openai.OpenAI:
    return openai.OpenAI(base_url=f"{mesh.address}/v1", api_key="any", max_retries=retries, timeout=120)


def plain(mesh: Mesh) -> str:
    one = client(mesh)
    assert mesh.model in {model.id for model in one.models.list()}
    assert one.models.retrieve(mesh.model).id == mesh.model
    for name in (mesh.model, mesh.ensemble):
        reply = one.chat.completions.create(model=name, messages=ASKED, **GREEDY)
        assert reply.choices[0].message.content and reply.usage and reply.usage.completion_tokens
    scored = one.completions.create(
        model=mesh.model, prompt="The capital of", max_tokens=1, echo=True, logprobs=1
    )
    assert scored.choices[0].logprobs and scored.choices[0].logprobs.token_logprobs[0] is None
    several = one.chat.completions.create(model=mesh.model, messages=ASKED, n=2, temperature=1, max_tokens=8)
    assert len(several.choices) == 2
    likely = one.chat.completions.create(
        model=mesh.model, messages=ASKED, logprobs=True, top_logprobs=2, **GREEDY
    )
    assert likely.choices[0].logprobs and len(likely.choices[0].logprobs.content[0].top_logprobs) == 2
    return reply.choices[0].message.content


def stream(mesh: Mesh) -> None:
    for name in (mesh.model, mesh.ensemble):
        whole = client(mesh).chat.completions.create(model=name, messages=ASKED, **GREEDY)
        with client(mesh).chat.completions.stream(
            model=name, messages=ASKED, stream_options={"include_usage": True}, **GREEDY
        ) as events:
            text = "".join(event.delta for event in events if event.type == "content.delta")
            final = events.get_final_completion()
        assert text == final.choices[0].message.content == whole.choices[0].message.content
        assert final.usage and whole.usage
        assert final.usage.completion_tokens == whole.usage.completion_tokens


def tools(mesh: Mesh) -> None:
    for model, choice in ((mesh.model, FORCED), (mesh.model, "required"), (mesh.caller, "auto")):
        told = {"model": model, "messages": ASKED, "tools": [WEATHER], "tool_choice": choice, **GREEDY}
        called = client(mesh).chat.completions.create(**told)
        (call,) = called.choices[0].message.tool_calls
        assert called.choices[0].finish_reason == "tool_calls"
        assert call.function.name == "weather"
        assert json.loads(call.function.arguments)["city"] in ("Lima", "Paris")
        with client(mesh).chat.completions.stream(**told) as events:
            (again,) = events.get_final_completion().choices[0].message.tool_calls
        assert again.function.arguments == call.function.arguments
    answer = {"role": "tool", "tool_call_id": call.id, "content": "sunny"}
    talk = [*ASKED, called.choices[0].message, answer]
    after = client(mesh).chat.completions.create(model=mesh.model, messages=talk, tools=[WEATHER], **GREEDY)
    assert after.choices[0].message.content or after.choices[0].message.tool_calls


def schema(mesh: Mesh) -> str:
    parsed = client(mesh).chat.completions.parse(
        model=mesh.model, messages=ASKED, response_format=City, **GREEDY
    )
    assert parsed.choices[0].message.parsed.city in ("Lima", "Paris")
    said = client(mesh).responses.parse(model=mesh.model, input=QUESTION, text_format=City, temperature=0)
    assert said.output_parsed.city in ("Lima", "Paris")
    return parsed.choices[0].message.content or ""


def embeddings(mesh: Mesh) -> None:
    one = client(mesh)
    packed = one.embeddings.create(model=mesh.model, input=["one", "two"]).data
    plain_ = one.embeddings.create(model=mesh.model, input=["one", "two"], encoding_format="float").data
    assert len(packed) == 2
    assert max(abs(a - b) for a, b in zip(packed[0].embedding, plain_[0].embedding, strict=True)) < 1e-6


def unknown(mesh: Mesh) -> str:
    def ask() -> object:
        return client(mesh).chat.completions.create(model="nobody", messages=ASKED)

    try:
        ask()
    except openai.NotFoundError as error:
        assert error.code == "model_not_found", error.body
    return must_fail(ask, "NotFoundError", "nobody")


def hang_up(mesh: Mesh) -> None:
    with mesh.left():
        pieces = client(mesh).chat.completions.create(model=mesh.slow, messages=ASKED, stream=True)
        next(iter(pieces))
        pieces.close()
    with mesh.left():
        quick = openai.OpenAI(base_url=f"{mesh.address}/v1", api_key="any", max_retries=0, timeout=1)
        must_fail(lambda: quick.chat.completions.create(model=mesh.slow, messages=ASKED), "Timeout")


def restart(mesh: Mesh) -> str:
    one = client(mesh)
    seen = cut(iter(one.chat.completions.create(model=mesh.slow, messages=ASKED, stream=True)), mesh)
    begun = one.responses.create(model=mesh.slow, input=QUESTION, background=True, stream=True)
    events = []
    try:
        for event in begun:
            events.append(event)
            if len(events) == 8:
                mesh.restart()
    except openai.APIError:
        pass
    except Exception as error:
        assert "RemoteProtocolError" in type(error).__name__ or "ReadError" in type(error).__name__, error
    name, last = events[0].response.id, events[-1].sequence_number
    rest = list(client(mesh, 3).responses.retrieve(name, stream=True, starting_after=last))
    numbers = [event.sequence_number for event in (*events, *rest)]
    assert numbers == list(range(len(numbers))), numbers
    text = "".join(e.delta for e in (*events, *rest) if e.type == "response.output_text.delta")
    assert text == WORDS, text
    again = client(mesh, 5).chat.completions.create(model=mesh.slow, messages=ASKED)
    assert again.choices[0].message.content == WORDS
    return f"{seen}; a response was taken up after event {last}"


def responses(mesh: Mesh) -> None:
    one = client(mesh)
    first = one.responses.create(model=mesh.model, input=QUESTION, temperature=0, max_output_tokens=48)
    assert first.output_text and first.status in ("completed", "incomplete")
    assert one.responses.retrieve(first.id).output_text == first.output_text
    assert one.responses.create(
        model=mesh.model, input="And Italy?", previous_response_id=first.id
    ).output_text
    with one.responses.stream(
        model=mesh.model, input=QUESTION, temperature=0, max_output_tokens=48
    ) as events:
        assert "".join(e.delta for e in events if e.type == "response.output_text.delta") == first.output_text
        assert events.get_final_response().output_text == first.output_text
    tool = {"type": "function", "name": "weather", "parameters": CITY, "strict": True}
    forced = {"type": "function", "name": "weather"}
    called = one.responses.create(model=mesh.model, input=QUESTION, tools=[tool], tool_choice=forced)
    assert json.loads(called.output[-1].arguments)["city"] in ("Lima", "Paris")
    left = one.responses.create(model=mesh.slow, input=QUESTION, background=True)
    assert one.responses.cancel(left.id).status == "cancelled"
    one.responses.delete(first.id)
    must_fail(lambda: one.responses.retrieve(first.id), "NotFoundError")


def batches(mesh: Mesh) -> None:
    one = client(mesh)
    body = {"model": mesh.model, "messages": ASKED, **GREEDY}
    line = {"method": "POST", "url": "/v1/chat/completions", "body": body}
    lines = b"".join(json.dumps({"custom_id": f"n{n}", **line}).encode() + b"\n" for n in range(20))
    sent = one.files.create(file=("batch.jsonl", io.BytesIO(lines)), purpose="batch")
    batch = one.batches.create(
        input_file_id=sent.id, endpoint="/v1/chat/completions", completion_window="24h"
    )
    end_s = time.monotonic() + BATCH_DEADLINE_S
    while batch.status not in ("completed", "failed", "expired"):
        assert time.monotonic() < end_s, batch
        time.sleep(0.2)
        batch = one.batches.retrieve(batch.id)
    assert batch.status == "completed" and batch.request_counts.completed == 20, batch
    output = one.files.content(batch.output_file_id).text.splitlines()
    assert {json.loads(row)["custom_id"] for row in output} == {f"n{n}" for n in range(20)}
    one.files.delete(sent.id)


def oversize(mesh: Mesh) -> str:
    long = [{"role": "user", "content": TOO_LONG}]
    one = client(mesh)
    told = ("BadRequestError", "tokens", "context")
    must_fail(lambda: list(one.chat.completions.create(model=mesh.model, messages=long, stream=True)), *told)
    must_fail(lambda: one.responses.create(model=mesh.model, input=TOO_LONG), *told)
    return must_fail(lambda: one.chat.completions.create(model=mesh.model, messages=long), *told)


def limited(mesh: Mesh) -> str:
    one = openai.OpenAI(base_url=f"{mesh.address}/v1", api_key=mesh.limited_key, max_retries=0)

    def ask() -> object:
        asked = [{"role": "user", "content": unheard()}]
        return one.chat.completions.create(model=mesh.model, messages=asked, **GREEDY)

    refused = must_be_limited(ask, "RateLimitError")
    assert isinstance(refused, openai.RateLimitError)
    return waits(refused.response.headers)


CHAT = (plain, stream, tools, schema, embeddings, unknown, hang_up, restart, oversize, limited)
run("openai-python", version("openai"), *CHAT, responses, batches)
