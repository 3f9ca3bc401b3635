"""Chat completions of the official client, over a real mesh of instant models."""

from __future__ import annotations

import asyncio
from typing import Any

import httpx
import openai
import pytest
from openai import AsyncOpenAI
from openai.types.chat import ChatCompletionMessageParam

from schemas.errors import Cancelled, NotReady, UnknownRequest
from services.client import Choir
from services.gateway.requests.identity import id_of_key

HELLO: list[ChatCompletionMessageParam] = [{"role": "user", "content": "What is the capital of France?"}]
URL = "/chat/completions"


async def test_models_and_ensembles_are_listed_alike(client: AsyncOpenAI) -> None:
    names = [model.id async for model in client.models.list()]

    assert "choir-one" in names
    assert "choir/majority" in names
    for name in ("choir-one", "choir-one:latest", "choir/majority"):
        assert (await client.models.retrieve(name)).object == "model"


async def test_a_completion_has_text_reason_and_usage(client: AsyncOpenAI) -> None:
    completion = await client.chat.completions.create(model="choir-four", messages=HELLO, max_tokens=3)

    assert completion.choices[0].message.content == "It is Paris"
    assert completion.choices[0].finish_reason == "length"
    assert completion.usage is not None
    assert (completion.usage.prompt_tokens, completion.usage.completion_tokens) == (6, 3)


async def test_a_stream_is_the_same_text_and_ends_with_the_usage(client: AsyncOpenAI) -> None:
    async with client.chat.completions.stream(
        model="choir-four", messages=HELLO, stream_options={"include_usage": True}
    ) as stream:
        pieces = [event.delta async for event in stream if event.type == "content.delta"]
        completion = await stream.get_final_completion()

    assert pieces == ["", "It", " is", " Paris", " of", " course"]
    assert completion.choices[0].message.content == "It is Paris of course"
    assert completion.usage is not None
    assert completion.usage.total_tokens == 11


@pytest.mark.parametrize("stream", [False, True])
async def test_an_ensemble_answers_as_a_model(client: AsyncOpenAI, stream: bool) -> None:
    model = "choir/majority@quartet"
    if stream:
        chunks = await client.chat.completions.create(model=model, messages=HELLO, stream=True)
        text = "".join([chunk.choices[0].delta.content or "" async for chunk in chunks])
    else:
        completion = await client.chat.completions.create(model=model, messages=HELLO)
        text = completion.choices[0].message.content or ""

    assert text.startswith("Paris")


async def test_an_unknown_model_is_not_found(client: AsyncOpenAI) -> None:
    with pytest.raises(openai.NotFoundError) as missing:
        await client.chat.completions.create(model="nobody", messages=HELLO)
    with pytest.raises(openai.NotFoundError):
        await client.chat.completions.create(model="nobody", messages=HELLO, stream=True)
    with pytest.raises(openai.NotFoundError):
        await client.models.retrieve("nobody")

    assert (missing.value.code, missing.value.param) == ("model_not_found", "model")
    assert "nobody" in missing.value.message


async def test_a_prompt_that_does_not_fit_is_refused_with_both_numbers(client: AsyncOpenAI) -> None:
    long: list[ChatCompletionMessageParam] = [{"role": "user", "content": "word " * 200}]

    with pytest.raises(openai.BadRequestError) as refused:
        await client.chat.completions.create(model="choir-short", messages=long)

    assert refused.value.code == "context_length_exceeded"
    assert "200" in refused.value.message
    assert "140" in refused.value.message


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b"{", 400),
        (b"[]", 400),
        (b"", 400),
        (b"\xff\xfe", 400),
        (b'{"model": 5, "messages": []}', 400),
        (b'{"model": "choir-one", "messages": "Hi"}', 400),
        (b'{"a":' * 5_000, 400),
        (b'{"model": "choir-one", "messages": [{"role": "user", "content": "\\ud800"}]}', 400),
        (b'{"model": "choir-one", "messages": [{"role": "user", "content": "x"}], "user": 1e999}', 400),
        (b" " * (1 << 20) + b"{}", 413),
        (b" " * 100_000 + b"{", 400),
    ],
    ids=[
        "broken",
        "list",
        "empty",
        "bytes",
        "number",
        "text",
        "deep",
        "surrogate",
        "too large a number",
        "large",
        "longer than a head",
    ],
)
async def test_a_bad_body_gets_an_error_that_the_client_can_read(
    client: AsyncOpenAI, body: bytes, status: int
) -> None:
    async with httpx.AsyncClient(base_url=str(client.base_url), timeout=60) as http:
        reply = await http.post(URL, content=body, headers={"content-type": "application/json"})

    error = reply.json()["error"]
    assert reply.status_code == status
    assert error["type"] == "invalid_request_error"
    assert set(error) == {"message", "type", "param", "code"}


async def test_a_wrong_path_and_a_wrong_method_have_the_same_shape(client: AsyncOpenAI) -> None:
    async with httpx.AsyncClient(base_url=str(client.base_url), timeout=60) as http:
        replies = [await http.post("nowhere"), await http.get(URL), await http.get("models/nobody")]
        doubled = await http.get("v1/models")

    assert [reply.status_code for reply in replies] == [404, 405, 404]
    assert all(isinstance(reply.json()["error"]["message"], str) for reply in replies)
    assert "begin with /v1" in replies[0].json()["error"]["message"]
    assert doubled.json()["object"] == "list"


async def test_a_request_that_is_sent_again_under_its_key_is_the_same_one(client: AsyncOpenAI) -> None:
    ids = set()
    for _ in range(2):
        reply = await client.chat.completions.with_raw_response.create(
            model="choir-one", messages=HELLO, extra_headers={"Idempotency-Key": "order 66"}
        )
        ids.add((reply.headers["choir-request-id"], reply.parse().id))

    assert len(ids) == 1
    with pytest.raises(openai.ConflictError, match="different request"):
        await client.chat.completions.create(
            model="choir-two", messages=HELLO, extra_headers={"Idempotency-Key": "order 66"}
        )


async def test_two_equal_requests_are_two(client: AsyncOpenAI) -> None:
    replies = await asyncio.gather(
        *(client.chat.completions.create(model="choir-one", messages=HELLO) for _ in range(2))
    )

    assert len({reply.id for reply in replies}) == 2


@pytest.mark.parametrize("stream", [False, True])
async def test_who_hangs_up_cancels_the_work(client: AsyncOpenAI, live_mesh: str, stream: bool) -> None:
    body: dict[str, Any] = {"model": "choir-slow", "messages": HELLO, "stream": stream}
    key = f"hang up {stream}"
    request_id = id_of_key(key, f"/v1{URL}", "")
    async with Choir(live_mesh) as mesh:
        # Given a request that the mesh works on
        http = httpx.AsyncClient(base_url=str(client.base_url), timeout=60)
        waiting = asyncio.create_task(http.post(URL, json=body, headers={"idempotency-key": key}))
        await until_known(mesh, request_id)

        # When its client goes
        waiting.cancel()
        await asyncio.wait([waiting])
        await http.aclose()

        # Then it is cancelled
        with pytest.raises(Cancelled):
            await mesh.fetch(request_id, wait_s=30)


async def until_known(mesh: Choir, request_id: str) -> None:
    """Returns when the mesh has taken a request."""
    async with asyncio.timeout(60):
        while True:
            try:
                await mesh.fetch(request_id)
            except NotReady:
                return
            except UnknownRequest:
                await asyncio.sleep(0.02)
