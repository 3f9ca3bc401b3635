"""The events of a message, byte for byte as Anthropic's clients get them."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from schemas.replies import Result, TokenChunk
from schemas.requests.chat import ToolCall
from services.gateway.anthropic.body import MessagesBody
from services.gateway.anthropic.events import message_events
from services.gateway.anthropic.message import message
from services.gateway.http.body import checked
from services.gateway.openai.tests.results import answer, chunk, result, result_of

GOLDEN = Path(__file__).parent / "golden"
CALL = ToolCall(id="call_1", name="weather", arguments={"city": "Lima"})
THINKING: dict[str, object] = {"thinking": {"type": "enabled", "budget_tokens": 1024}}
STREAMS: dict[str, tuple[dict[str, object], list[TokenChunk | Result]]] = {
    "text": ({}, [chunk("Hel"), chunk("lo", 1), result("Hello")]),
    "thoughts_and_calls": (
        THINKING,
        [chunk("", thinking="Let me see."), result("I look", thinking="Let me see.", calls=(CALL,))],
    ),
    "ensemble": (
        THINKING,
        [result_of(answer("Paris", agent="one"), answer("Lyon", agent="two"), topology="ensemble")],
    ),
}


def body_of(**fields: object) -> MessagesBody:
    messages = [{"role": "user", "content": "Hi"}]
    return checked({"model": "m", "max_tokens": 64, "messages": messages, **fields}, MessagesBody)


async def stream_of(body: MessagesBody, *replies: TokenChunk | Result) -> str:
    async def coming() -> AsyncIterator[TokenChunk | Result]:
        for reply in replies:
            yield reply

    return b"".join([frame async for frame in message_events(body, "r", coming())]).decode()


@pytest.mark.parametrize("name", STREAMS)
async def test_a_stream_is_as_it_was(name: str) -> None:
    fields, replies = STREAMS[name]

    assert await stream_of(body_of(**fields), *replies) == (GOLDEN / f"{name}.txt").read_text()


async def test_thoughts_are_left_out_where_nobody_asked_for_them() -> None:
    told = result("Yes", thinking="Hm")

    stream = await stream_of(body_of(), chunk("", thinking="Hm"), told)

    assert "Hm" not in stream
    assert [block["type"] for block in message(body_of(), "r", told)["content"]] == ["text"]


def test_a_text_that_was_cut_off_and_one_call_of_two_are_told_so() -> None:
    cut = message(body_of(), "r", result("Hel", finish_reason="length"))
    one = body_of(tool_choice={"type": "auto", "disable_parallel_tool_use": True})
    called = message(one, "r", result("", calls=(CALL, CALL.model_copy(update={"id": "call_2"}))))

    assert (cut["stop_reason"], cut["usage"]["output_tokens"]) == ("max_tokens", 3)
    assert called["stop_reason"] == "tool_use"
    assert called["content"] == [
        {"type": "tool_use", "id": "call_1", "name": "weather", "input": {"city": "Lima"}}
    ]
