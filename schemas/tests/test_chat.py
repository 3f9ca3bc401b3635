"""Conversations as clients send them: parts, tools, calls and their results."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from schemas.commands import Ask, Generate, RawPrompt, Tokenize
from schemas.replies import Embeddings
from schemas.requests.chat import ChatMessage, ToolCall
from schemas.requests.sampling import Sampling
from schemas.tests.golden.shared import GATHER
from schemas.tests.test_commands import field_of

WEATHER = {"name": "weather", "parameters": {"type": "object"}}
CALL = {"id": "call_1", "name": "weather", "arguments": {"city": "Paris"}}
IMAGE = {"type": "image", "data": "aW1hZ2U="}
TEXTS = {"prompt": None, "embed": {"inputs": ["a"]}}
RAW = {"prompt": None, "raw": {"text": "The"}}


def turn(**fields: Any) -> ChatMessage:
    return ChatMessage.model_validate({"role": "user", **fields})


def test_a_developer_speaks_as_the_system() -> None:
    assert turn(role="developer", content="Be brief.").role == "system"


def test_parts_of_text_are_one_text_and_images_stand_beside_it() -> None:
    parts = [{"type": "text", "text": "What is "}, IMAGE, {"type": "text", "text": "this?"}]
    message = turn(content=parts)
    assert message.content == "What is this?"
    assert [image.data for image in message.images] == ["aW1hZ2U="]


def test_what_was_made_of_parts_is_read_again() -> None:
    message = turn(content=[{"type": "text", "text": "this?"}, IMAGE])
    assert ChatMessage.model_validate_json(message.model_dump_json()) == message


@pytest.mark.parametrize("content", ["", None])
def test_an_assistant_that_only_calls_says_nothing(content: str | None) -> None:
    message = turn(role="assistant", content=content, tool_calls=[CALL])
    assert message.content == ""
    assert message.tool_calls[0].arguments == {"city": "Paris"}


def test_a_tool_may_have_nothing_to_say() -> None:
    assert turn(role="tool", content="", tool_call_id="call_1").content == ""


@pytest.mark.parametrize(
    ("field", "fields"),
    [
        ("content", {"content": ""}),
        ("content", {"role": "system", "content": None}),
        ("content", {}),
        ("", {"content": [{"type": "video", "url": "x"}]}),
        ("", {"content": ["words"]}),
        ("images.0.data", {"content": [{"type": "image", "data": "no base64!"}]}),
        ("images", {"role": "assistant", "content": "a", "images": [IMAGE]}),
        ("thinking", {"content": "a", "thinking": "b"}),
        ("tool_calls", {"content": "a", "tool_calls": [CALL]}),
        ("tool_calls.0.id", {"role": "assistant", "tool_calls": [{**CALL, "id": "two words"}]}),
        ("tool_calls.0.arguments", {"role": "assistant", "tool_calls": [{**CALL, "arguments": "{}"}]}),
        ("tool_call_id", {"role": "assistant", "content": "a", "tool_call_id": "call_1"}),
    ],
)
def test_a_turn_that_cannot_be_names_its_field(field: str, fields: dict[str, Any]) -> None:
    with pytest.raises(ValidationError) as refused:
        turn(**fields)
    assert field_of(refused.value) == field


@pytest.mark.parametrize(
    ("field", "change"),
    [
        ("tools", {"tools": [WEATHER, WEATHER]}),
        ("tools.0.name", {"tools": [{**WEATHER, "name": "two words"}]}),
        ("tools.0.function", {"tools": [{"name": "f", "function": WEATHER}]}),
        ("tool_choice", {"tool_choice": "required"}),
        ("tool_choice", {"tools": [WEATHER], "tool_choice": {"name": "time"}}),
        ("tools", {"model": "alto", "summarize_with": ["bass"], "tools": [WEATHER]}),
        ("tools", {**RAW, "model": "alto", "tools": [WEATHER]}),
        ("prompt", {"raw": {"text": "The"}}),
        ("prompt", {"embed": {"inputs": ["a"]}}),
        ("raw", {**RAW}),
        ("raw", {**RAW, "model": "alto", "summarize_with": ["bass"]}),
        ("raw", {"prompt": None, "raw": {}, "model": "alto"}),
        ("raw", {"prompt": None, "raw": {"text": "a", "tokens": [1]}, "model": "alto"}),
        ("raw.tokens.0", {"prompt": None, "raw": {"tokens": [-1]}, "model": "alto"}),
        ("embed", {**TEXTS}),
        ("embed.inputs", {"prompt": None, "embed": {"inputs": []}, "model": "alto"}),
        ("embed.inputs.1", {"prompt": None, "embed": {"inputs": ["a", ""]}, "model": "alto"}),
        ("embed.dimensions", {"prompt": None, "embed": {"inputs": ["a"], "dimensions": 0}}),
        ("stream", {**TEXTS, "model": "alto", "stream": True}),
        ("sampling.n", {"sampling": {"n": 2}}),
        ("sampling.n", {"model": "alto", "sampling": {"n": 9}}),
        ("sampling.prompt_logprobs", {"model": "alto", "sampling": {"prompt_logprobs": True}}),
        (
            "sampling.prompt_logprobs",
            {"model": "alto", "sampling": {"prompt_logprobs": True, "logprobs": 1}},
        ),
        ("sampling.presence_penalty", {"sampling": {"presence_penalty": 2.5}}),
        ("sampling.repeat_penalty", {"sampling": {"repeat_penalty": 0}}),
        ("sampling.min_p", {"sampling": {"min_p": 1.5}}),
        ("sampling.logit_bias", {"sampling": {"logit_bias": dict.fromkeys(range(1025), 1.0)}}),
        ("sampling.logit_bias.5", {"sampling": {"logit_bias": {"5": 101}}}),
    ],
)
def test_a_request_that_cannot_be_names_its_field(field: str, change: dict[str, Any]) -> None:
    with pytest.raises(ValidationError) as refused:
        Ask.model_validate({"prompt": "hello", **change})
    assert field_of(refused.value).startswith(field)


def test_what_was_not_asked_for_is_not_sent() -> None:
    """So an agent that does not know it yet can take the command."""
    sent = GATHER.generate("alto").model_dump(mode="json")
    assert not sent.keys() & {"tools", "tool_choice"}
    assert sent["sampling"].keys() == {
        *("max_tokens", "temperature", "top_k", "top_p", "seed", "stop", "logprobs"),
        *("json_schema", "grammar"),
    }


def test_a_command_of_before_is_read() -> None:
    old = (
        b'{"schema_version":1,"request_id":"a","agent":"alto","model":"alto","sampling":{"max_tokens":8},'
        b'"messages":[{"role":"user","content":"hello"}],"fingerprint":"f","accepted_at_s":1,"deadline_at_s":2}'
    )
    command = Generate.model_validate_json(old)
    assert (command.tools, command.tool_choice, command.sampling.n) == ((), "auto", 1)


def test_a_generate_has_one_task() -> None:
    command = GATHER.generate("alto")
    with pytest.raises(ValidationError, match="exactly one"):
        Generate.model_validate({**command.model_dump(), "raw": RawPrompt(text="The")})
    with pytest.raises(ValidationError, match="exactly one"):
        Generate.model_validate({**command.model_dump(), "messages": ()})


def test_calls_that_ask_for_the_same_are_alike() -> None:
    one = ToolCall(id="1", name="weather", arguments={"city": "Zürich", "days": 2})
    other = ToolCall(id="2", name="weather", arguments={"days": 2, "city": "Zürich"})
    assert one.canonical == other.canonical == '{"arguments":{"city":"Zürich","days":2},"name":"weather"}'


def test_vectors_come_back_as_they_were() -> None:
    vectors = ((0.5, -0.25, 3.0), (0.0, 1.0, 2.0))
    sent = Embeddings.model_validate_json(Embeddings.of(vectors).model_dump_json())
    assert (sent.numbers, sent.dimensions) == (vectors, 3)


def test_a_question_to_a_tokenizer_is_one_question() -> None:
    with pytest.raises(ValidationError) as refused:
        Tokenize(model="alto", text="a", tokens=(1,))
    assert field_of(refused.value) == "text"


def test_null_among_arguments_is_sent() -> None:
    message = ChatMessage(role="assistant", tool_calls=(ToolCall(id="1", name="f", arguments={"x": None}),))
    ask = Ask(messages=(message,), sampling=Sampling())
    assert b'"arguments":{"x":null}' in ask.to_bytes()


def test_turns_with_calls_and_images_pass_the_door_which_reads_strictly() -> None:
    call = {"id": "1", "name": "f", "arguments": {"x": [1]}}
    messages = [
        {"role": "user", "content": "look", "images": [{"type": "image", "data": "aaaa"}]},
        {"role": "assistant", "tool_calls": [call]},
        {"role": "tool", "content": "3", "tool_call_id": "1"},
    ]
    sent = Ask.model_validate({"messages": messages, "model": "alto"}).to_bytes()
    read = Ask.model_validate_json(sent, strict=True)
    assert read.messages[1].tool_calls[0].arguments == {"x": [1]}
    assert len(read.messages[0].images) == 1
