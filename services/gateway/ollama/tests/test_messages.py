"""Messages, calls and pictures on their way from Ollama's words to the mesh's."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from schemas.errors import InvalidRequest
from schemas.requests.chat import ChatMessage, ToolCall
from services.gateway.ollama.messages import Message, call_object, chat_messages, images


def turns(*given: dict[str, Any]) -> list[ChatMessage]:
    read = [Message.model_validate(each) for each in given]
    return [ChatMessage.model_validate(each) for each in chat_messages(read)]


def calling(*names: str) -> dict[str, Any]:
    calls = [{"function": {"name": name, "arguments": {"n": 1}}} for name in names]
    return {"role": "assistant", "content": "", "tool_calls": calls}


def test_the_answer_of_a_tool_finds_its_call() -> None:
    said = turns(
        {"role": "user", "content": "Add."},
        calling("add", "sub"),
        {"role": "tool", "tool_name": "sub", "content": "0"},
        {"role": "tool", "tool_name": "add", "content": "2"},
        calling("add"),
        {"role": "tool", "content": "3"},
    )
    add, sub = said[1].tool_calls
    assert add.id != sub.id
    assert [(turn.tool_call_id, turn.name) for turn in said[2:4]] == [(sub.id, "sub"), (add.id, "add")]
    assert said[5].tool_call_id == said[4].tool_calls[0].id not in (add.id, sub.id)


def test_a_turn_with_more_calls_than_the_mesh_takes_is_refused_in_words() -> None:
    with pytest.raises(ValidationError, match="tool_calls"):
        turns(calling(*("add",) * 1_001))


def test_an_id_that_is_given_is_kept() -> None:
    call = {"id": "call_x", "function": {"name": "add", "arguments": {}}}
    said = turns({"role": "assistant", "tool_calls": [call]}, {"role": "tool", "tool_call_id": "call_x"})
    assert said[0].tool_calls[0].id == said[1].tool_call_id == "call_x"
    shown = call_object(ToolCall(id="call_x", name="add", arguments={"n": 1}), 0)
    assert shown == {"id": "call_x", "function": {"index": 0, "name": "add", "arguments": {"n": 1}}}


def test_a_system_that_says_nothing_is_left_out() -> None:
    said = turns({"role": "system", "content": ""}, {"role": "user", "content": "Hi"}, {"role": "assistant"})
    assert [turn.role for turn in said] == ["user", "assistant"]


def test_a_picture_is_known_by_its_first_bytes() -> None:
    kinds = [image["media_type"] for image in images(["iVBORw0KGgo=", "/9j/4AAQ", "R0lGODdh", "UklGRgAA"])]
    assert kinds == ["image/png", "image/jpeg", "image/gif", "image/webp"]


@pytest.mark.parametrize(
    "address", ["http://inside/", "https://10.0.0.1/x.png", "data:image/png;base64,AAAA"]
)
def test_a_picture_is_not_fetched(address: str) -> None:
    with pytest.raises(InvalidRequest, match="base64"):
        images([address])
