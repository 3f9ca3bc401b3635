"""The events of a chat completion, as the official client reads them."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Any

import pytest

from schemas.errors import GenerationFailed
from schemas.replies import Result, Sample, TokenChunk
from schemas.requests.chat import ToolCall
from services.gateway.http.body import checked
from services.gateway.openai.chat.body import ChatBody
from services.gateway.openai.chat.completion import completion
from services.gateway.openai.chat.stream import chat_events
from services.gateway.openai.tests.results import answer, chunk, result, result_of

SAID = {
    "text": "Hi",
    "logprob": -0.25,
    "top": [{"text": "Hi", "logprob": -0.25}, {"text": "Ho", "logprob": -2.0}],
}
CALL = ToolCall(id="call_1", name="weather", arguments={"city": "Lima"})


def body_of(**fields: Any) -> ChatBody:
    return checked({"model": "m", "messages": [{"role": "user", "content": "Hi"}], **fields}, ChatBody)


async def events_of(body: ChatBody, *replies: TokenChunk | Result) -> list[dict[str, Any]]:
    """The events, of which the last says that the stream is done."""

    async def coming() -> AsyncIterator[TokenChunk | Result]:
        for reply in replies:
            yield reply

    frames = b"".join([frame async for frame in chat_events(body, "r", 1_700_000_000, coming())])
    *events, done, nothing = frames.split(b"\n\n")
    assert (done, nothing) == (b"data: [DONE]", b"")
    parts = [event.split(b"\ndata: ") for event in events]
    assert all(name.startswith(b"id: r:") for name, _ in parts)
    return [json.loads(said) for _, said in parts]


async def test_the_role_comes_first_and_the_usage_last() -> None:
    body = body_of(stream_options={"include_usage": True})

    events = await events_of(body, chunk("He"), chunk("llo", 1), result("Hello"))

    choices = [event["choices"][0] for event in events[:-1]]
    assert [choice["delta"].get("content") for choice in choices] == ["", "He", "llo", None]
    assert choices[0]["delta"]["role"] == "assistant"
    assert [choice["finish_reason"] for choice in choices] == [None, None, None, "stop"]
    assert events[-1]["choices"] == []
    assert events[-1]["usage"] == {"prompt_tokens": 5, "completion_tokens": 3, "total_tokens": 8}
    assert {(event["id"], event["created"]) for event in events} == {("chatcmpl-r", 1_700_000_000)}


async def test_the_first_text_does_not_wait_until_the_role_has_been_sent() -> None:
    async def coming() -> AsyncIterator[TokenChunk | Result]:
        for reply in (chunk("He"), chunk("llo", 1), result("Hello")):
            yield reply

    first, second, *_ = [frame async for frame in chat_events(body_of(), "r", 1_700_000_000, coming())]

    assert b'"role":"assistant"' in first and b'"He"' in first
    assert b'"role"' not in second and b'"llo"' in second


async def test_no_usage_comes_where_nobody_asked_for_it() -> None:
    events = await events_of(body_of(), result("Hello"))

    assert all("usage" not in event and event["choices"] for event in events)


async def test_what_the_chunks_left_out_comes_with_the_result() -> None:
    events = await events_of(body_of(), chunk("He"), result("Hello world " * 20))

    assert "".join(e["choices"][0]["delta"].get("content", "") for e in events) == "Hello world " * 20


async def test_a_text_that_was_begun_again_and_differs_ends_the_stream_with_an_error() -> None:
    with pytest.raises(GenerationFailed, match="ask again"):
        await events_of(body_of(), chunk("He"), chunk("Good", 1, restarted=True), result("Good day"))
    with pytest.raises(GenerationFailed, match="ask again"):
        await events_of(body_of(), chunk("He"), result("Good day"))


async def test_thoughts_are_kept_apart_and_not_repeated_by_another_attempt() -> None:
    first = chunk("", thinking="Let me ")
    again = (chunk("", 1, thinking="Let", attempt=2), chunk("", 2, thinking=" me see", attempt=2))

    events = await events_of(body_of(), first, *again, chunk("Yes", 3), result("Yes", thinking="Let me see."))

    deltas = [event["choices"][0]["delta"] for event in events]
    assert "".join(delta.get("reasoning_content", "") for delta in deltas) == "Let me see."
    assert "".join(delta.get("content", "") for delta in deltas) == "Yes"


async def test_calls_have_an_index_and_their_own_reason_of_the_end() -> None:
    events = await events_of(body_of(), result("", calls=(CALL, CALL.model_copy(update={"id": "call_2"}))))

    calls = [c for event in events for c in event["choices"][0]["delta"].get("tool_calls", ())]
    assert [(call["index"], call["id"]) for call in calls] == [(0, "call_1"), (1, "call_2")]
    assert json.loads(calls[0]["function"]["arguments"]) == {"city": "Lima"}
    assert events[-1]["choices"][0]["finish_reason"] == "tool_calls"


async def test_a_client_that_takes_one_call_gets_one() -> None:
    body = body_of(parallel_tool_calls=False)
    two = result("", calls=(CALL, CALL.model_copy(update={"id": "call_2"})))

    events = await events_of(body, two)

    assert len([e for e in events if "tool_calls" in e["choices"][0]["delta"]]) == 1
    assert len(completion(body, "r", two)["choices"][0]["message"]["tool_calls"]) == 1


async def test_probabilities_come_with_their_text_and_once() -> None:
    body = body_of(logprobs=True, top_logprobs=2)
    whole = result("Hi", logprobs=(SAID, SAID))

    events = await events_of(body, chunk("Hi", logprobs=(SAID,)), whole)

    told = [event["choices"][0]["logprobs"] for event in events]
    assert [len(said["content"]) if said else 0 for said in told] == [0, 1, 1]
    token = completion(body, "r", whole)["choices"][0]["logprobs"]["content"][0]
    assert (token["token"], token["logprob"], token["bytes"]) == ("Hi", -0.25, [72, 105])
    assert [other["token"] for other in token["top_logprobs"]] == ["Hi", "Ho"]


async def test_probabilities_of_what_was_thought_come_once_too() -> None:
    tokens = tuple({**SAID, "text": text, "top": []} for text in ("H", "m", "Hi", ""))
    whole = result("Hi", thinking="Hm", logprobs=tokens)
    thinks = (
        chunk("", 0, thinking="H", logprobs=tokens[:1]),
        chunk("", 1, thinking="m", logprobs=tokens[1:2]),
    )

    events = await events_of(body_of(logprobs=True), *thinks, chunk("Hi", 2, logprobs=tokens[2:3]), whole)

    told = [event["choices"][0]["logprobs"] for event in events]
    assert [[token["token"] for token in said["content"]] if said else [] for said in told] == [
        [], ["H"], ["m"], ["Hi"], [""],
    ]  # fmt: skip


async def test_each_of_several_texts_is_a_choice() -> None:
    further = Sample(text="Hey", finish_reason="length", generated_tokens=1)
    both = result("Hello", samples=(further,))

    whole = completion(body_of(n=2), "r", both)
    events = await events_of(body_of(n=2), both)

    assert [(c["index"], c["message"]["content"]) for c in whole["choices"]] == [(0, "Hello"), (1, "Hey")]
    assert [choice["finish_reason"] for choice in whole["choices"]] == ["stop", "length"]
    texts = ["", ""]
    for event in events:
        choice = event["choices"][0]
        texts[choice["index"]] += choice["delta"].get("content") or ""
    assert texts == ["Hello", "Hey"]


def test_the_usage_of_an_ensemble_is_that_of_all_and_says_the_winners() -> None:
    told = result_of(
        answer("Paris", agent="a"), answer("Lyon", agent="b", generated_tokens=4), topology="ensemble"
    )

    whole = completion(body_of(reasoning_effort="low"), "r", told)

    assert whole["usage"]["completion_tokens"] == 7
    assert whole["usage"]["completion_tokens_details"]["winner_tokens"] == 3
    assert whole["choices"][0]["message"]["reasoning_content"] == "a: Paris\n\nb: Lyon"
    assert "reasoning_content" not in completion(body_of(), "r", told)["choices"][0]["message"]
