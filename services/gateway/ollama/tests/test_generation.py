"""Lines of a reply, from what the mesh says of it."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Any

import pytest

from schemas.errors import AnswersUnreadable, GenerationFailed
from schemas.replies import Answer, Result, Timings, TokenChunk
from schemas.requests.chat import ToolCall
from services.gateway.ollama.generation import Lines, chat_shape, prompt_shape

CALL = ToolCall(id="call_0", name="add", arguments={"a": 1, "b": [2]})
TIMINGS = Timings(prompt_eval_duration_ns=5_000_000, eval_duration_ns=7_000_000, load_duration_ns=1)


def answer(text: str, **fields: Any) -> Answer:
    return Answer(
        request_id="r", agent="a", model="a", instance="i", text=text, timings=TIMINGS, prompt_tokens=3,
        **{"finish_reason": "stop", "generated_tokens": 2, **fields},
    )  # fmt: skip


def result(*answers: Answer, **fields: Any) -> Result:
    topology = "single" if len(answers) == 1 else "ensemble"
    said = {"text": answers[0].text, "tool_calls": answers[0].tool_calls, **fields}
    return Result(
        request_id="r", fingerprint="f", topology=topology, answers=answers, accepted_at_s=10.0,
        completed_at_s=10.25, **said,
    )  # fmt: skip


def chunk(index: int, text: str = "", **fields: Any) -> TokenChunk:
    return TokenChunk(request_id="r", agent="a", index=index, text=text, **fields)


async def streamed(*replies: TokenChunk | Result, shape: Any = chat_shape) -> list[dict[str, Any]]:
    async def given() -> AsyncIterator[TokenChunk | Result]:
        for reply in replies:
            yield reply

    lines = Lines("m", shape, logprobs=None, with_members=False)
    return [json.loads(line) async for line in lines.stream(given())]


async def test_calls_come_once_before_the_end_with_arguments_as_an_object() -> None:
    whole = result(answer("", tool_calls=(CALL,)))
    for replies in ((whole,), (chunk(0, tool_calls=(CALL,)), whole)):
        *said, last = await streamed(*replies)
        calls = [call for line in said for call in line["message"].get("tool_calls", ())]
        assert [(call["function"]["name"], call["function"]["arguments"]) for call in calls] == [
            ("add", {"a": 1, "b": [2]})
        ]
        assert (last["done"], last["done_reason"], last["message"]["content"]) == (True, "stop", "")


async def test_thoughts_are_kept_apart_from_the_text() -> None:
    said = await streamed(chunk(0, thinking="Hm"), chunk(1, "4"), result(answer("42", thinking="Hm, so")))
    assert "".join(line["message"].get("thinking", "") for line in said) == "Hm, so"
    assert "".join(line["message"]["content"] for line in said) == "42"


async def test_a_text_that_was_begun_again_and_differs_is_an_error() -> None:
    with pytest.raises(GenerationFailed, match="ask again"):
        await streamed(chunk(0, "one"), chunk(0, "two", restarted=True, attempt=2), result(answer("two")))


async def test_figures_are_nanoseconds_and_sums_over_all_who_answered() -> None:
    last = (await streamed(result(answer("a"), answer("b", finish_reason="length")), shape=prompt_shape))[-1]
    assert last["total_duration"] == 250_000_000
    assert (last["prompt_eval_count"], last["eval_count"]) == (6, 4)
    assert (last["prompt_eval_duration"], last["eval_duration"]) == (10_000_000, 14_000_000)
    assert (last["done_reason"], last["response"]) == ("stop", "")
    cut = (await streamed(result(answer("a", finish_reason="length"))))[-1]
    assert cut["done_reason"] == "length"


async def test_a_decision_that_nobody_could_read_is_an_error() -> None:
    with pytest.raises(AnswersUnreadable):
        await streamed(result(answer("a"), answer("b"), text=None))
