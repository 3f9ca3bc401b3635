"""The Responses API with the official client, over a real mesh of instant models."""

from __future__ import annotations

from typing import Any

import httpx
import openai
import pytest
from openai import AsyncOpenAI

from infra.testing.choir_up import connect_inside
from schemas import subjects
from services.gateway.tests.serving import serving

QUESTION = "What is the capital of France?"
ANSWER = "It is Paris of course"


async def numbered(stream: Any) -> list[tuple[int, str, str]]:
    """The events of a stream: number, type, and the piece of text."""
    return [(event.sequence_number, event.type, getattr(event, "delta", "")) async for event in stream]


def text_of(events: list[tuple[int, str, str]]) -> str:
    return "".join(delta for _, kind, delta in events if kind == "response.output_text.delta")


async def test_a_response_is_kept_until_it_is_deleted(client: AsyncOpenAI) -> None:
    made = await client.responses.create(
        model="choir-four", input=QUESTION, instructions="Be brief.", metadata={"chapter": "2"}
    )
    fetched = await client.responses.retrieve(made.id)

    assert (made.status, made.output_text, made.metadata) == ("completed", ANSWER, {"chapter": "2"})
    assert made.usage is not None
    assert (made.usage.input_tokens, made.usage.output_tokens) == (8, 5)
    assert fetched == made

    await client.responses.delete(made.id)
    with pytest.raises(openai.NotFoundError, match="not found"):
        await client.responses.retrieve(made.id)


async def test_a_response_that_is_not_stored_cannot_be_fetched(client: AsyncOpenAI) -> None:
    made = await client.responses.create(model="choir-four", input=QUESTION, store=False)

    for unknown in (made.id, "resp_nobody", "resp_a.b", "../etc"):
        with pytest.raises(openai.NotFoundError):
            await client.responses.retrieve(unknown)


async def test_a_text_that_is_cut_off_is_incomplete(client: AsyncOpenAI) -> None:
    made = await client.responses.create(model="choir-four", input=QUESTION, max_output_tokens=2)

    assert (made.status, made.output_text) == ("incomplete", "It is")
    assert made.incomplete_details is not None
    assert made.incomplete_details.reason == "max_output_tokens"


@pytest.mark.parametrize("model", ["choir-four", "choir/majority@quartet"])
async def test_the_clients_own_stream_reads_it_to_the_end(client: AsyncOpenAI, model: str) -> None:
    async with client.responses.stream(model=model, input=QUESTION) as stream:
        events = await numbered(stream)
        final = await stream.get_final_response()

    assert [number for number, _, _ in events] == list(range(len(events)))
    assert text_of(events) == final.output_text
    assert final.output_text in (ANSWER, "Paris", "Paris.")


async def test_a_conversation_goes_on_from_the_response_before(client: AsyncOpenAI) -> None:
    first = await client.responses.create(model="choir-four", input=QUESTION, instructions="Be brief.")
    second = await client.responses.create(
        model="choir-four", input="And of Kenya?", previous_response_id=first.id
    )
    third = await client.responses.create(model="choir-four", input="Why?", previous_response_id=second.id)

    # A word is a token here: what was said before counts, and instructions do not
    inputs = [made.usage.input_tokens for made in (first, second, third) if made.usage]
    assert inputs == [8, 6 + 5 + 3, 6 + 5 + 3 + 5 + 1]
    assert second.previous_response_id == first.id
    with pytest.raises(openai.NotFoundError) as unknown:
        await client.responses.create(model="choir-four", input="Why?", previous_response_id="resp_nobody")
    assert unknown.value.param == "previous_response_id"


async def test_a_stream_goes_on_on_another_gateway_after_its_tokens_are_gone(
    client: AsyncOpenAI, live_mesh: str
) -> None:
    # Given a response in the background, of whose stream a client had a part
    stream = await client.responses.create(model="choir-four", input=QUESTION, background=True, stream=True)
    had: list[tuple[int, str, str]] = []
    async for event in stream:
        had.append((event.sequence_number, event.type, getattr(event, "delta", "")))
        if text_of(had):
            break
    created = await client.responses.retrieve(stream.response.headers["choir-request-id"])
    await stream.close()
    last = had[-1][0]

    async with (
        serving(live_mesh) as other,
        AsyncOpenAI(base_url=f"{other}/v1", api_key="none", max_retries=0, timeout=60) as second,
    ):
        # When it goes on elsewhere, nothing is missing and nothing doubled
        rest = await numbered(await second.responses.retrieve(created.id, stream=True, starting_after=last))
        whole = had + rest
        assert [number for number, _, _ in whole] == list(range(len(whole)))
        assert text_of(whole) == (await second.responses.retrieve(created.id)).output_text == ANSWER

        # And from the result alone it is the same stream, wherever it is taken up
        nc = await connect_inside(live_mesh)
        await nc.jetstream().purge_stream(
            subjects.TOKENS_STREAM, subject=subjects.tokens_of(created.id.removeprefix("resp_"))
        )
        await nc.close()
        for after in (-1, 3, last, whole[-1][0]):
            again = await second.responses.retrieve(created.id, stream=True, starting_after=after)
            assert await numbered(again) == whole[after + 1 :]
        async with second.responses.stream(response_id=created.id, starting_after=last) as resumed:
            assert [event.sequence_number async for event in resumed] == [n for n, _, _ in rest]
            assert (await resumed.get_final_response()).output_text == ANSWER


async def test_a_response_in_the_background_goes_on_alone_until_it_is_cancelled(client: AsyncOpenAI) -> None:
    made = await client.responses.create(model="choir-slow", input=QUESTION, background=True)
    waiting = await client.responses.retrieve(made.id)
    cancelled = await client.responses.cancel(made.id)

    assert (made.status, waiting.status, cancelled.status) == ("queued", "in_progress", "cancelled")
    assert (await client.responses.cancel(made.id)).status == "cancelled"


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"input": 5}, "input"),
        ({"input": []}, "input"),
        ({"input": [{"type": "item_reference", "id": "x"}]}, "input.0.type"),
        ({"input": [{"content": "x"}]}, "input.0.role"),
        ({"input": [{"type": "function_call", "name": "f"}]}, "input.0.call_id"),
        ({"input": "x", "background": True, "store": False}, "background"),
        ({"input": "x", "tools": [{"type": "file_search"}]}, "tools.0.type"),
        ({"input": "x", "text": {"format": {"type": "json_schema"}}}, "text.format.json_schema.schema"),
        ({"input": "x", "metadata": {"a": 1}}, "metadata.a"),
    ],
)
async def test_what_cannot_be_is_named(client: AsyncOpenAI, body: dict[str, Any], param: str) -> None:
    with pytest.raises(openai.BadRequestError) as refused:
        await client.responses.create(model="choir-four", **body)

    assert (refused.value.param or "").startswith(param)


async def test_a_request_that_is_refused_leaves_the_first_response_under_its_key_as_it_is(
    client: AsyncOpenAI,
) -> None:
    key = {"idempotency-key": "the first one stays"}
    given: dict[str, Any] = {"model": "choir-one", "input": QUESTION, "metadata": {"number": "1"}}
    ways: list[dict[str, Any]] = [{}, {"stream": True}, {"background": True}]
    first = await client.responses.create(**given, extra_headers=key)

    # Another request under its key is refused, and nobody finds a trace of it
    other = {**given, "input": "And of Kenya?", "metadata": {"number": "2"}}
    for way in (*ways, {"background": True, "stream": True}):
        with pytest.raises(openai.ConflictError):
            await client.responses.create(**other, **way, extra_headers=key)
        assert await client.responses.retrieve(first.id) == first

    # The same one is that one again, with what was said then
    assert await client.responses.create(**given, extra_headers=key) == first
    said = await client.responses.create(**{**given, "metadata": {"number": "3"}}, extra_headers=key)
    assert said == first == await client.responses.retrieve(first.id)


async def test_a_refused_request_is_not_kept(client: AsyncOpenAI) -> None:
    key = {"idempotency-key": "the first one is not kept"}
    made = await client.responses.create(model="choir-one", input=QUESTION, store=False, extra_headers=key)

    for stream in (False, True):
        with pytest.raises(openai.ConflictError):
            await client.responses.create(model="choir-one", input="?", stream=stream, extra_headers=key)
        with pytest.raises(openai.NotFoundError):
            await client.responses.retrieve(made.id)


@pytest.mark.parametrize("stream", [False, True])
async def test_after_a_refusal_what_is_asked_under_its_key_is_kept(client: AsyncOpenAI, stream: bool) -> None:
    key = {"idempotency-key": f"refused at first, {stream}"}
    with pytest.raises(openai.BadRequestError):
        await client.responses.create(model="choir-short", input="word " * 200, extra_headers=key)

    made: Any = await client.responses.create(
        model="choir-short", input="word", metadata={"number": "2"}, stream=stream, extra_headers=key
    )
    if stream:
        made = [event async for event in made][-1].response
    assert made.metadata == {"number": "2"} and await client.responses.retrieve(made.id) == made
    follows = await client.responses.create(model="choir-short", input="word", previous_response_id=made.id)
    assert follows.usage is not None and follows.usage.input_tokens == 1 + 3 + 1


async def test_numbers_that_json_does_not_have_are_refused(client: AsyncOpenAI) -> None:
    body = b'{"model": "choir-one", "input": "x", "text": {"format": {"type": "text", "of": [-1E+999]}}}'
    async with httpx.AsyncClient(base_url=str(client.base_url), timeout=60) as http:
        reply = await http.post("responses", content=body, headers={"content-type": "application/json"})
    assert (reply.status_code, b"Infinity" in reply.content) == (400, False), reply.text
