"""What a client may ask, and what is refused with the name of the field."""

from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

from schemas.commands import MAX_MEMBERS, MAX_PEERS, Ask, ChatMessage, Feedback, Fetch, Summarize
from schemas.message import Name, Topic
from schemas.requests.sampling import Sampling
from schemas.subjects import decode_token
from schemas.tests.golden.shared import GATHER, SUMMARIZE

BAD_TEMPLATES = (
    "",
    "Summarize.",
    "Summarize: {content}",
    "Summarize: {text.__class__}",
    "Summarize: {text!r}",
    "Summarize: {text:>99999999}",
    "Summarize: {text} as {}",
    "Summarize: {text",
    "Summarize: {text}}",
    "Summarize: {{text}}",
    "x" * 8_193 + "{text}",
)

NAN, INFINITE = math.nan, math.inf


def field_of(refused: ValidationError) -> str:
    """The field that an error names: what it says, for an error over several fields, or where it is."""
    first = refused.errors()[0]
    said: str = first.get("ctx", {}).get("field", "")
    return said or ".".join(map(str, first["loc"]))


@pytest.mark.parametrize(
    ("field", "change"),
    [
        ("prompt", {"prompt": ""}),
        ("prompt", {"prompt": " \n\t "}),
        ("prompt", {"prompt": None}),
        ("prompt", {"prompt": 5}),
        ("prompt", {"messages": [{"role": "user", "content": "and this"}]}),
        ("messages.0.content", {"prompt": None, "messages": [{"role": "user", "content": ""}]}),
        ("messages.0.role", {"prompt": None, "messages": [{"role": "wizard", "content": "hocus"}]}),
        ("messages.0.tone", {"prompt": None, "messages": [{"role": "user", "content": "a", "tone": 1}]}),
        ("request_id", {"request_id": ""}),
        ("request_id", {"request_id": "a.b"}),
        ("request_id", {"request_id": "a b"}),
        ("request_id", {"request_id": "a\n"}),
        ("request_id", {"request_id": "*"}),
        ("request_id", {"request_id": ">"}),
        ("request_id", {"request_id": "é"}),
        ("request_id", {"request_id": "x" * 65}),
        ("model", {"model": ""}),
        ("model", {"model": "two words"}),
        ("model", {"model": "x" * 129}),
        ("model", {"model": "alto", "models": ["bass"]}),
        ("model", {"model": "alto", "strategies": ["majority"]}),
        ("models", {"models": ["alto", "bass", "alto"]}),
        ("models", {"models": [f"m{i}" for i in range(MAX_MEMBERS + 1)]}),
        ("models.1", {"models": ["alto", ""]}),
        ("models", {"models": "alto"}),
        ("strategies.0", {"strategies": [""]}),
        ("strategies", {"strategies": "majority"}),
        ("choices", {"choices": ["x"] * 27}),
        ("choices", {"choices": ["gold"]}),
        ("choices", {"choices": ["gold", "gold"]}),
        ("choices.1", {"choices": ["gold", ""]}),
        ("choices.1", {"choices": ["gold", " "]}),
        ("answer_kind", {"answer_kind": "essay"}),
        ("max_agents", {"max_agents": 0}),
        ("max_agents", {"max_agents": -3}),
        ("max_agents", {"max_agents": 10**9}),
        ("max_agents", {"max_agents": 1.5}),
        ("max_agents", {"max_agents": "many"}),
        ("quorum", {"quorum": 0}),
        ("quorum", {"quorum": MAX_MEMBERS + 1}),
        ("timeout_s", {"timeout_s": 0}),
        ("timeout_s", {"timeout_s": -1}),
        ("timeout_s", {"timeout_s": 1e9}),
        ("timeout_s", {"timeout_s": NAN}),
        ("timeout_s", {"timeout_s": INFINITE}),
        ("priority", {"priority": "urgent"}),
        ("stream", {"stream": "perhaps"}),
        ("sampling.max_tokens", {"sampling": {"max_tokens": 0}}),
        ("sampling.max_tokens", {"sampling": {"max_tokens": 10**12}}),
        ("sampling.temperature", {"sampling": {"temperature": -0.1}}),
        ("sampling.temperature", {"sampling": {"temperature": NAN}}),
        ("sampling.temperature", {"sampling": {"temperature": INFINITE}}),
        ("sampling.top_k", {"sampling": {"top_k": -1}}),
        ("sampling.top_p", {"sampling": {"top_p": 0}}),
        ("sampling.top_p", {"sampling": {"top_p": 1.01}}),
        ("sampling.top_p", {"sampling": {"top_p": NAN}}),
        ("sampling.seed", {"sampling": {"seed": -1}}),
        ("sampling.seed", {"sampling": {"seed": 2**32}}),
        ("sampling.logprobs", {"sampling": {"logprobs": 21}}),
        ("sampling.stop", {"sampling": {"stop": [""]}}),
        ("sampling.stop", {"sampling": {"stop": ["x" * 257]}}),
        ("sampling.stop", {"sampling": {"stop": ["x" * 200 + str(number) for number in range(3_000)]}}),
        ("sampling.grammar", {"sampling": {"grammar": "root ::= 'x'", "json_schema": {}}}),
        ("sampling.mirostat", {"sampling": {"mirostat": 2}}),
        ("summarize_with", {"summarize_with": ["alto"]}),
        ("summarize_with.0", {"model": "bass", "summarize_with": [""]}),
        ("summarize_with", {"model": "bass", "summarize_with": ["alto"] * MAX_PEERS}),
        ("summary_prompt", {"model": "bass", "summary_prompt": "{text}"}),
        *(
            ("summary_prompt", {"model": "bass", "summarize_with": ["alto"], "summary_prompt": template})
            for template in BAD_TEMPLATES
        ),
        ("topic", {"topic": ""}),
        ("topic", {"topic": " "}),
        ("topic", {"topic": "x" * 65}),
        ("samples", {"strategies": ["best_single"], "samples": 0}),
        ("samples", {"strategies": ["best_single"], "samples": MAX_MEMBERS + 1}),
        ("samples", {"strategies": ["majority"], "samples": 5}),
        ("samples", {"samples": 5}),
        ("colour", {"colour": "red"}),
    ],
)
def test_a_bad_ask_is_refused_and_the_field_is_named(field: str, change: dict[str, Any]) -> None:
    with pytest.raises(ValidationError) as refused:
        Ask.model_validate({"prompt": "Why?", **change})
    assert field_of(refused.value) == field


@pytest.mark.parametrize(
    "data",
    [b"", b"hello", b"[]", b"null", b'"prompt"', b'{"prompt": "a"', b"\xff\xfe", b'{"prompt": "\\ud800"}'],
)
def test_what_is_not_an_ask_in_json_is_refused(data: bytes) -> None:
    with pytest.raises(ValidationError):
        Ask.model_validate_json(data)


@given(st.binary(max_size=64))
def test_reading_an_ask_fails_in_no_other_way(data: bytes) -> None:
    with pytest.raises(ValidationError):
        Ask.model_validate_json(data)


@pytest.mark.parametrize("name", ["a\x1b[2J", "a\x00", "a\x07b", "a\x9b1A", "a\x7f", "a\nb", "\x1b]0;x\x07"])
def test_a_name_commands_no_terminal_and_begins_no_line(name: str) -> None:
    """Names of models and topics are shown by every client, and stand in every log."""
    with pytest.raises(ValidationError):
        TypeAdapter(Name).validate_python(name)
    with pytest.raises(ValidationError):
        TypeAdapter(Topic).validate_python(f"a {name} b")


def test_a_bare_prompt_is_enough() -> None:
    ask = Ask.model_validate_json(b'{"prompt": "Why?"}')
    assert ask.conversation == (ChatMessage(role="user", content="Why?"),)
    assert (ask.sampling.temperature, ask.timeout_s, ask.priority, ask.stream) == (
        0.0,
        60.0,
        "interactive",
        False,
    )


def test_messages_are_the_conversation_as_they_are() -> None:
    turns = (ChatMessage(role="system", content="Be brief."), ChatMessage(role="user", content="Why?"))
    assert Ask(messages=turns).conversation == turns


@pytest.mark.parametrize(
    "delivery",
    [{"request_id": "another"}, {"stream": True}, {"timeout_s": 5.0}, {"priority": "batch"}],
)
def test_how_a_reply_is_delivered_does_not_make_another_request(delivery: dict[str, Any]) -> None:
    ask = Ask(request_id="one", prompt="Why?")
    assert ask.model_copy(update=delivery).fingerprint == ask.fingerprint


@pytest.mark.parametrize(
    "content",
    [
        {"prompt": "Why not?"},
        {"model": "alto"},
        {"summarize_with": ("alto",)},
        {"summary_prompt": "Say in one word: {text}"},
        {"models": ("alto",)},
        {"models": ("alto", "bass")},
        {"models": ("bass", "alto")},
        {"strategies": ("weighted",)},
        {"choices": ("yes", "no")},
        {"answer_kind": "number"},
        {"max_agents": 2},
        {"quorum": 2},
        {"sampling": Sampling(seed=1)},
        {"sampling": Sampling(stop=("\n",))},
    ],
)
def test_what_is_asked_makes_another_request(content: dict[str, Any]) -> None:
    ask = Ask(prompt="Why?")
    assert ask.model_copy(update=content).fingerprint != ask.fingerprint


def test_a_fingerprint_is_short_hexadecimal_and_the_same_in_every_process() -> None:
    assert Ask(prompt="Why?").fingerprint == Ask.model_validate_json(b'{"prompt": "Why?"}').fingerprint
    assert len(Ask(prompt="Why?").fingerprint) == 32
    int(Ask(prompt="Why?").fingerprint, 16)


def test_a_gather_asks_each_member_the_same_and_wants_its_answer_back() -> None:
    command = GATHER.generate("llama3.2:3b", round_=2)

    assert (command.agent, command.model, command.round) == ("llama3.2:3b", "llama3.2:3b", 2)
    assert command.routing_slip == ("aggregator",)
    for field in (
        "request_id",
        "messages",
        "sampling",
        "priority",
        "stream",
        "fingerprint",
        "accepted_at_s",
        "deadline_at_s",
    ):
        assert getattr(command, field) == getattr(GATHER, field)


def test_the_form_of_a_chain_s_result_is_asked_of_its_last_text_and_that_alone_streams() -> None:
    first, part, last = (
        SUMMARIZE.generate(1, SUMMARIZE.messages, at_s=7.0),
        SUMMARIZE.generate(2, SUMMARIZE.messages, part="part-1", at_s=8.0),
        SUMMARIZE.generate(2, SUMMARIZE.messages, at_s=9.0),
    )

    assert [(c.round, c.agent, c.model, c.accepted_at_s) for c in (first, part, last)] == [
        (1, "choir-bass", "choir-bass", 7.0),
        (2, "part-1", "llama3.2:3b", 8.0),
        (2, "llama3.2:3b", "llama3.2:3b", 9.0),
    ]
    assert [command.stream for command in (first, part, last)] == [False, False, True]
    assert [command.sampling.json_schema is None for command in (first, part, last)] == [True, True, False]
    for command in (first, part, last):
        assert command.routing_slip == ("summarizer",)
        assert (command.priority, command.deadline_at_s) == (SUMMARIZE.priority, SUMMARIZE.deadline_at_s)
        assert command.sampling.seed == SUMMARIZE.sampling.seed


@pytest.mark.parametrize("peers", [(), ("alto",), ("alto",) * (MAX_PEERS + 1)])
def test_a_chain_has_two_peers_at_least_and_so_many_at_most(peers: tuple[str, ...]) -> None:
    with pytest.raises(ValidationError, match="peers"):
        Summarize.model_validate(SUMMARIZE.model_dump() | {"peers": peers})


def test_a_template_may_ask_for_the_question_and_hold_braces_of_its_own() -> None:
    template = 'Answer {question} as {{"answer": ...}} from: {text}'
    ask = Ask(prompt="Why?", model="alto", summarize_with=("bass",), summary_prompt=template)
    assert ask.summary_prompt == template


def test_the_question_of_a_chain_is_what_the_user_said_last() -> None:
    assert SUMMARIZE.question == "What is the capital of France?"
    alone = SUMMARIZE.model_copy(update={"messages": SUMMARIZE.messages[:1]})
    assert alone.question == ""


def test_a_task_id_has_three_tokens_of_which_the_last_is_the_agent() -> None:
    request_id, round_, agent = GATHER.generate("llama3.2:3b").task_id.split(".")
    assert (request_id, round_, decode_token(agent)) == (GATHER.request_id, "1", "llama3.2:3b")


@pytest.mark.parametrize(
    "change",
    [{"wait_s": -1}, {"wait_s": NAN}, {"wait_s": 1e9}, {"after_sequence": -1}, {"request_id": "a.b"}],
)
def test_a_bad_fetch_is_refused(change: dict[str, Any]) -> None:
    with pytest.raises(ValidationError, match=next(iter(change))):
        Fetch.model_validate({"request_id": "one", **change})


@pytest.mark.parametrize("correct", ["", "x" * 4_097, None, 4])
def test_a_feedback_needs_a_right_answer(correct: object) -> None:
    with pytest.raises(ValidationError, match="correct"):
        Feedback.model_validate({"request_id": "one", "correct": correct})
