"""What Anthropic's clients send, as the mesh is asked."""

from __future__ import annotations

from typing import Any

import pytest

from schemas.errors import InvalidRequest
from services.gateway.anthropic.body import MessagesBody, messages_ask
from services.gateway.http.body import checked
from services.gateway.openai.tests.results import ENSEMBLE, ONE_MODEL

IMAGE = {"type": "base64", "media_type": "image/png", "data": "iVBORw0KGgo="}
TOOL = {"name": "weather", "description": "Tells it.", "input_schema": {"type": "object", "properties": {}}}


def body_of(**fields: Any) -> MessagesBody:
    messages = [{"role": "user", "content": "Hi"}]
    return checked({"model": "m", "max_tokens": 64, "messages": messages, **fields}, MessagesBody)


def test_a_conversation_with_calls_becomes_turns() -> None:
    body = body_of(
        system=[{"type": "text", "text": "Be brief.", "cache_control": {"type": "ephemeral"}}],
        messages=[
            {
                "role": "user",
                "content": [{"type": "text", "text": "Weather?"}, {"type": "image", "source": IMAGE}],
            },
            {
                "role": "assistant",
                "content": [
                    {"type": "thinking", "thinking": "Ask.", "signature": "x"},
                    {"type": "text", "text": "I look."},
                    {"type": "tool_use", "id": "toolu_1", "name": "weather", "input": {"city": "Lima"}},
                ],
            },
            {
                "role": "user",
                "content": [
                    {
                        "type": "tool_result",
                        "tool_use_id": "toolu_1",
                        "content": "no such city",
                        "is_error": True,
                    },
                    {"type": "text", "text": "And now?"},
                ],
            },
        ],
        tools=[TOOL],
        tool_choice={"type": "any"},
    )

    ask = messages_ask(body, ONE_MODEL, "r", 60.0)

    system, weather, look, result, now = ask.messages
    assert (system.role, system.content) == ("system", "Be brief.")
    assert (weather.content, len(weather.images)) == ("Weather?", 1)
    assert (look.content, look.thinking, look.tool_calls[0].arguments) == (
        "I look.",
        "Ask.",
        {"city": "Lima"},
    )
    assert (result.role, result.name, result.content) == ("tool", "weather", "The call failed: no such city")
    assert now.content == "And now?"
    assert (ask.tools[0].name, ask.tool_choice) == ("weather", "required")


def test_what_holds_is_anthropics_and_nothing_is_thought_unless_it_was_asked_for() -> None:
    plain = messages_ask(body_of(stop_sequences=["END", "END", ""]), ONE_MODEL, "r", 60.0).sampling
    thinking = {"type": "enabled", "budget_tokens": 1_024}
    deep = body_of(thinking=thinking, output_config={"effort": "high"}, temperature=0.5, max_tokens=1_000_000)

    assert (plain.temperature, plain.top_k, plain.max_tokens, plain.think) == (1.0, 0, 64, False)
    assert plain.stop == ("END",)
    sampling = messages_ask(deep, ONE_MODEL, "r", 60.0).sampling
    assert (sampling.think, sampling.temperature, sampling.max_tokens) == ("high", 0.5, 32_768)
    assert messages_ask(body_of(stream=True), ONE_MODEL, "r", 60.0).stream
    assert not messages_ask(body_of(stream=True), ENSEMBLE, "r", 60.0).stream


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"max_tokens": None}, "max_tokens"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"messages": []}, "messages"),
        ({"messages": [{"role": "user", "content": ""}]}, "messages.0.content"),
        ({"messages": [{"role": "user", "content": [{"type": "document"}]}]}, "messages.0.content.0.type"),
        ({"messages": [{"role": "user", "content": [{"type": "image"}]}]}, "messages.0.content.0.source"),
        ({"messages": [{"role": "assistant", "content": "The answer is"}]}, "messages"),
        ({"stop_sequences": ["x" * 300]}, "stop_sequences"),
        ({"temperature": 9.0}, "temperature"),
        ({"tools": [{"type": "web_search_20250305", "name": "web_search"}]}, "tools.0.type"),
        ({"tools": [TOOL], "tool_choice": {"type": "tool"}}, "tool_choice.name"),
        ({"tools": [TOOL], "tool_choice": {"type": "tool", "name": "time"}}, "tool_choice"),
        ({"thinking": {"type": "maybe"}}, "thinking.type"),
        ({"system": 5}, "system"),
    ],
)
def test_what_cannot_be_is_named(fields: dict[str, Any], field: str) -> None:
    with pytest.raises(InvalidRequest) as refused:
        messages_ask(body_of(**fields), ONE_MODEL, "r", 60.0)

    assert (refused.value.field or "").startswith(field)
