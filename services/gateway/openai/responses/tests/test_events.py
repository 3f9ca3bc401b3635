"""The events of a response: what the official client makes of them, and that they are always the same."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from openai import omit
from openai.lib.streaming.responses._responses import ResponseStreamState
from openai.types.responses import ResponseStreamEvent
from pydantic import TypeAdapter

from schemas.commands import Ask
from schemas.errors import ChoirError, GenerationFailed, Overloaded
from schemas.replies import Result, TokenChunk
from schemas.requests.chat import ToolCall
from schemas.requests.responses import ResponseRecord
from services.gateway.openai.responses.events import ResponseEvents, TextChanged
from services.gateway.openai.responses.routes import events_of
from services.gateway.openai.tests.results import chunk, result

ASK = Ask(request_id="r", prompt="Hello", model="small")
ECHO = {"parallel_tool_calls": True, "tool_choice": "auto", "tools": []}
RECORD = ResponseRecord(ask=ASK, conversation=(), created_at_s=1_700_000_000.0, model="small", echo=ECHO)
CALL = ToolCall(id="call_1", name="weather", arguments={"city": "Lima"})
EVENT: TypeAdapter[Any] = TypeAdapter(ResponseStreamEvent)


def whole_stream(of: Result) -> list[dict[str, Any]]:
    """The stream as it is made from the result alone."""
    events = ResponseEvents(RECORD)
    return [*events.start(), *events.end(of)]


@pytest.mark.parametrize(
    "of",
    [
        result("Hello world."),
        result(""),
        result("Yes", thinking="Let me see."),
        result("", calls=(CALL, CALL.model_copy(update={"id": "call_2"}))),
        result("I look", thinking="Hm", calls=(CALL,)),
    ],
    ids=["text", "nothing", "thoughts", "calls", "all"],
)
def test_the_official_client_reads_the_stream_to_its_end(of: Result) -> None:
    state: ResponseStreamState[Any] = ResponseStreamState(input_tools=omit, text_format=omit)

    events = [EVENT.validate_python(event) for event in whole_stream(of)]
    for event in events:
        state.handle_event(event)

    assert [event.sequence_number for event in events] == list(range(len(events)))
    final = state._completed_response
    assert final is not None
    assert final.output_text == of.text
    assert [item.call_id for item in final.output if item.type == "function_call"] == [
        call.id for call in of.tool_calls
    ]


@settings(deadline=None)
@given(
    text=st.text(max_size=40),
    thoughts=st.text(max_size=20),
    cuts=st.lists(st.integers(min_value=0, max_value=40), max_size=8),
)
def test_the_events_are_the_same_however_the_text_came(text: str, thoughts: str, cuts: list[int]) -> None:
    of = result(text, thinking=thoughts or None)
    live = ResponseEvents(RECORD)
    events = live.start()
    events += [event for char in thoughts for event in live.think(char)]
    bounds = [0, *sorted(cuts)]
    for start, end in pairwise(bounds):
        events += live.say(text[start:end])
    events += live.end(of)

    assert events == whole_stream(of)


def test_a_text_that_is_another_one_is_not_joined_to_what_was_shown() -> None:
    events = ResponseEvents(RECORD)
    events.say("Hello")

    with pytest.raises(TextChanged):
        events.end(result("Good day"))


def test_a_failure_and_a_text_that_was_cut_off_have_endings_of_their_own() -> None:
    cut = whole_stream(result("Hel", finish_reason="length"))[-1]
    error = GenerationFailed("no luck").body("r")
    failed = whole_stream(result("").model_copy(update={"error": error, "text": None}))[-1]

    assert (cut["type"], cut["response"]["incomplete_details"]) == (
        "response.incomplete",
        {"reason": "max_output_tokens"},
    )
    assert (failed["type"], failed["response"]["error"]["message"]) == ("response.failed", "no luck")


async def replies(error: ChoirError) -> AsyncGenerator[TokenChunk | Result, None]:
    """The beginning of a text, and what goes wrong then."""
    yield chunk("Hel")
    raise error


async def test_what_goes_wrong_on_the_way_is_not_the_end_of_a_response() -> None:
    """Whoever comes back for it goes on with the number after the last one."""
    events = []
    with pytest.raises(Overloaded):
        async for event in events_of(RECORD, replies(Overloaded("full")), early=True):
            events.append(event)
    assert [event["sequence_number"] for event in events] == list(range(len(events)))
    assert "response.failed" not in {event["type"] for event in events}

    failure = GenerationFailed("no luck")
    failure.result = result("").model_copy(update={"error": failure.body("r"), "text": None})
    told = [event["type"] async for event in events_of(RECORD, replies(failure), early=True)]
    assert told == [*(event["type"] for event in events), "response.failed"]
