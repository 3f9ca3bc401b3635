"""What a chat completion asks of the mesh."""

from __future__ import annotations

from typing import Any

import pytest

from schemas.commands import Ask
from schemas.errors import InvalidRequest
from services.gateway.http.body import checked
from services.gateway.http.exchange import Exchange, Reply, current_exchange
from services.gateway.openai.asking.sampling import ResponseFormat
from services.gateway.openai.chat.body import ChatBody, chat_ask
from services.gateway.openai.tests.results import ENSEMBLE, ONE_MODEL

HELLO = {"role": "user", "content": "Hello"}
PARAMETERS = {"type": "object", "properties": {"city": {"type": "string"}}}
BAD_CALL = {"role": "assistant", "tool_calls": [{"function": {"name": "f", "arguments": "{"}}]}
REMOTE = {"type": "image_url", "image_url": {"url": "http://x/y"}}
WEATHER = {"type": "function", "function": {"name": "weather", "parameters": PARAMETERS}}
CALL = {"id": "call_7", "type": "function", "function": {"name": "weather", "arguments": '{"city":"Lima"}'}}


def ask_of(request_id: str = "r1", **fields: Any) -> Ask:
    body = checked({"model": "small", "messages": [HELLO], **fields}, ChatBody)
    return chat_ask(body, ONE_MODEL, request_id, 30.0)


def test_what_is_not_said_is_as_openai_has_it() -> None:
    sampling = ask_of().sampling

    assert (sampling.temperature, sampling.top_p, sampling.top_k) == (1.0, 1.0, 0)
    assert sampling.max_tokens == 32_768


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        ('{"a":' + "[" * 100 + "]" * 100 + "}", "nested deeper than 64 levels"),
        ('{"a":' + "[" * 300 + "]" * 300 + "}", "is no JSON"),
        ('{"a":"\\ud800"}', "is no JSON"),
        ('{"a":NaN}', "is no JSON"),
        ('{"a":[1e999]}', "a number that is too large"),
        ('{"a":-1E+0400}', "a number that is too large"),
        ('{"a":1' + "0" * 309 + ".5}", "a number that is too large"),
        ("[]", "must be a JSON object"),
    ],
    ids=["deep", "deeper", "surrogate", "no number", "too large", "too small", "too long", "list"],
)
def test_arguments_that_nobody_can_write_down_are_refused_in_words(arguments: str, why: str) -> None:
    call = {"role": "assistant", "tool_calls": [{"function": {"name": "f", "arguments": arguments}}]}
    with pytest.raises(InvalidRequest, match=why) as refused:
        ask_of(messages=[HELLO, call]).to_bytes()
    assert refused.value.field == "messages.1.tool_calls.0.function.arguments"


def test_a_request_without_a_seed_has_one_of_its_id() -> None:
    assert ask_of("r1").sampling.seed == ask_of("r1").sampling.seed
    assert ask_of("r1").sampling.seed != ask_of("r2").sampling.seed
    assert ask_of("r1").fingerprint == ask_of("r1").fingerprint
    assert ask_of(seed=-1).sampling.seed == 2**32 - 1


@pytest.mark.parametrize(
    ("fields", "name", "value"),
    [
        ({"max_tokens": 7}, "max_tokens", 7),
        ({"max_tokens": 7, "max_completion_tokens": 9}, "max_tokens", 9),
        ({"max_tokens": 1_000_000}, "max_tokens", 32_768),
        ({"temperature": 0}, "temperature", 0.0),
        ({"stop": "END"}, "stop", ("END",)),
        ({"stop": ["a", "", "b", "a"]}, "stop", ("a", "b")),
        ({"logprobs": True}, "logprobs", 1),
        ({"logprobs": True, "top_logprobs": 4}, "logprobs", 4),
        ({"n": 3}, "n", 3),
        ({"presence_penalty": 0.5}, "presence_penalty", 0.5),
        ({"logit_bias": {"42": -100}}, "logit_bias", {42: -100.0}),
        ({"reasoning_effort": "none"}, "think", False),
        ({"reasoning_effort": "high"}, "think", "high"),
        ({"response_format": {"type": "text"}}, "json_schema", None),
        ({"response_format": {"type": "json_object"}}, "json_schema", {"type": "object"}),
        (
            {
                "response_format": {
                    "type": "json_schema",
                    "json_schema": {"name": "x", "schema": {"type": "array"}},
                }
            },
            "json_schema",
            {"type": "array"},
        ),
    ],
)
def test_a_field_of_openai_is_one_of_the_sampler(fields: dict[str, Any], name: str, value: object) -> None:
    assert getattr(ask_of(**fields).sampling, name) == value


def test_fields_that_nobody_knows_are_passed_over() -> None:
    body: dict[str, Any] = {
        "store": True,
        "metadata": {"a": 1},
        "service_tier": "auto",
        "verbosity": "low",
        "user": 5,
    }

    assert ask_of(**body).messages[0].content == "Hello"


async def test_such_fields_are_counted_by_name_and_those_of_another_name_here_are_not() -> None:
    names: list[str] = []
    nobody: Any = None
    current_exchange.set(Exchange({}, Reply(nobody), nobody, names.append))
    checked({"type": "json_schema", "schema": {}, "schema_": {}, "strict": True}, ResponseFormat)
    assert sorted(names) == ["schema_", "strict"]


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({"messages": []}, "messages"),
        ({"messages": [{"role": "system", "content": ""}]}, "messages"),
        ({"messages": [{"role": "wizard", "content": "hocus"}]}, "messages.0.role"),
        ({"messages": [{"role": "user", "content": ""}]}, "messages.0.content"),
        ({"messages": [{"role": "user", "content": [{"type": "input_audio"}]}]}, "messages.0.content.0.type"),
        (
            {"messages": [{"role": "user", "content": [REMOTE]}]},
            "messages.0.content.0.image_url",
        ),
        ({"temperature": "warm"}, "temperature"),
        ({"temperature": "0.5"}, "temperature"),
        ({"temperature": 9}, "temperature"),
        ({"top_p": 0}, "top_p"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"n": 99}, "n"),
        ({"stream": "yes"}, "stream"),
        ({"stop": 5}, "stop"),
        ({"response_format": {"type": "xml"}}, "response_format.type"),
        ({"response_format": {"type": "json_schema"}}, "response_format.json_schema.schema"),
        ({"tools": [{"type": "web_search"}]}, "tools.0.type"),
        ({"tools": [WEATHER], "tool_choice": {"type": "function", "function": {"name": "x"}}}, "tool_choice"),
        (
            {"messages": [HELLO, BAD_CALL]},
            "messages.1.tool_calls.0.function.arguments",
        ),
    ],
)
def test_a_field_that_cannot_be_is_named(fields: dict[str, Any], named: str) -> None:
    with pytest.raises(InvalidRequest) as refused:
        ask_of(**fields)

    assert (refused.value.field or "").startswith(named)
    assert refused.value.message.startswith(named)


def test_messages_come_in_all_their_forms() -> None:
    messages = [
        {"role": "developer", "content": "Be brief."},
        {"role": "system", "content": ""},
        {
            "role": "user",
            "content": [{"type": "text", "text": "What is the "}, {"type": "text", "text": "weather?"}],
        },
        {"role": "assistant", "content": None, "tool_calls": [CALL]},
        {"role": "tool", "tool_call_id": "call_7", "content": "sunny"},
    ]

    system, user, assistant, tool = ask_of(messages=messages, tools=[WEATHER]).messages

    assert (system.role, system.content) == ("system", "Be brief.")
    assert user.content == "What is the weather?"
    assert assistant.tool_calls[0].arguments == {"city": "Lima"}
    assert (tool.content, tool.tool_call_id, tool.name) == ("sunny", "call_7", "weather")


def test_calls_without_an_id_have_each_one_of_their_own() -> None:
    call = {key: value for key, value in CALL.items() if key != "id"}
    turn = {"role": "assistant", "content": None, "tool_calls": [call, CALL, call]}

    first, second = ask_of(messages=[turn, turn], tools=[WEATHER]).messages

    assert [call.id for call in first.tool_calls] == ["call_0", "call_7", "call_1"]
    assert [call.id for call in second.tool_calls] == ["call_2", "call_7", "call_3"]


def test_an_image_travels_inside_the_request() -> None:
    picture = {"type": "image_url", "image_url": {"url": "data:image/jpeg;base64,AAAA"}}

    [message] = ask_of(messages=[{"role": "user", "content": [picture]}]).messages

    assert (message.images[0].media_type, message.images[0].data) == ("image/jpeg", "AAAA")


def test_tools_and_the_one_to_call_are_passed_on() -> None:
    chosen = {"type": "function", "function": {"name": "weather"}}
    ask = ask_of(tools=[WEATHER], tool_choice=chosen)

    assert ask.tools[0].name == "weather"
    assert ask.tools[0].parameters["properties"] == {"city": {"type": "string"}}
    assert getattr(ask.tool_choice, "name", None) == "weather"


def test_an_ensemble_is_named_as_a_model_and_does_not_come_in_pieces() -> None:
    body = checked({"model": "choir/majority", "messages": [HELLO], "stream": True}, ChatBody)

    ask = chat_ask(body, ENSEMBLE, "r1", 30.0)

    assert (ask.model, ask.strategies, ask.stream) == (None, ("majority",), False)
    assert ask_of(stream=True).stream
    assert not ask_of(stream=True, n=2).stream


def test_an_ensemble_is_asked_with_the_effort_that_a_body_names() -> None:
    fields = {"model": "choir/majority", "messages": [HELLO]}
    ask = chat_ask(checked({**fields, "effort": "bounded", "epsilon": 0.05}, ChatBody), ENSEMBLE, "r1", 30.0)
    assert (ask.effort, ask.epsilon) == ("bounded", 0.05)
    sure = chat_ask(checked({**fields, "min_confidence": 0.9}, ChatBody), ENSEMBLE, "r1", 30.0)
    assert sure.min_confidence == 0.9
    with pytest.raises(InvalidRequest, match="epsilon"):
        chat_ask(checked({**fields, "effort": "bounded"}, ChatBody), ENSEMBLE, "r1", 30.0)
