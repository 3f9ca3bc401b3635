"""What a hostile body costs the thread that all clients share: reading it, checking it, and asking."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Iterator, Set
from contextlib import suppress

import pytest
from nats.aio.client import Client

from schemas.errors import InvalidRequest
from services.chassis.process.garbage import SERVING
from services.client.client import Choir
from services.gateway.anthropic.body import MessagesBody, messages_ask
from services.gateway.http.body import checked, parse_object
from services.gateway.http.context import GatewayContext
from services.gateway.ollama.bodies import ChatBody as OllamaChatBody
from services.gateway.ollama.bodies import chat_ask as ollama_ask
from services.gateway.openai.chat.body import ChatBody, chat_ask
from services.gateway.openai.completions.body import CompletionBody, completion_asks
from services.gateway.openai.embeddings import EmbeddingsBody, embedding_asks
from services.gateway.openai.responses.body import ResponseBody, record_of
from services.gateway.openai.tests.results import ONE_MODEL
from services.gateway.settings import GatewaySection
from services.gateway.tests.serving import events_of

MIB = 1 << 20
BOUND_S = 0.5
"""Processor time of the thread, several times what the worst takes. Once what is wrong was told of each entry
of a list, which took three seconds; what grows with the square of the length takes minutes."""


@pytest.fixture(autouse=True)
def collected_as_in_a_gateway() -> Iterator[None]:
    """What the tests before have made is not searched for garbage, as a gateway's own modules are not."""
    usual = gc.get_threshold()
    gc.freeze()
    gc.set_threshold(SERVING, *usual[1:])
    yield
    gc.set_threshold(*usual)
    gc.unfreeze()


def filled(head: str, part: str, tail: str) -> str:
    """A value of nearly a MiB: a part again and again."""
    return head + ",".join([part] * ((MIB - 300) // (len(part) + 1))) + tail


def chat(data: bytes) -> None:
    chat_ask(checked(parse_object(data), ChatBody), ONE_MODEL, "r", 60.0)


def completion(data: bytes) -> None:
    completion_asks(checked(parse_object(data), CompletionBody), ONE_MODEL, "r", 60.0)


def embedding(data: bytes) -> None:
    embedding_asks(checked(parse_object(data), EmbeddingsBody), ONE_MODEL, "r", 60.0)


def response(data: bytes) -> None:
    given = parse_object(data)
    record_of(checked(given, ResponseBody), given, (), ONE_MODEL, "r", 60.0)


def anthropic(data: bytes) -> None:
    messages_ask(checked(parse_object(data), MessagesBody), ONE_MODEL, "r", 60.0)


def ollama(data: bytes) -> None:
    client = Client()
    context = GatewayContext(Choir(), GatewaySection(), client, events_of(client))
    ollama_ask(context, checked(parse_object(data), OllamaChatBody), ONE_MODEL, "r")


SAID = '{"role":"user","content":"a"}'
PART = '{"type":"text","text":"a"}'
CALL = '{"id":"a","function":{"name":"f","arguments":"{}"}}'
VALUES: dict[str, Callable[[], str]] = {
    "digits": lambda: "1" * (MIB - 200),
    "runs of digits": lambda: filled("[", "1" * 308, "]"),
    "numbers": lambda: filled("[", "1", "]"),
    "numbers and a text": lambda: filled("[", "1", ',"a"]'),
    "large numbers": lambda: filled("[", "1e308", "]"),
    "too large numbers": lambda: filled("[", "1e309", "]"),
    "ids below zero": lambda: filled("[", "-1", "]"),
    "texts": lambda: filled("[", '""', "]"),
    "one text": lambda: '"' + "a" * (MIB - 200) + '"',
    "escapes": lambda: '"' + "\\u0041" * ((MIB - 200) // 6) + '"',
    "objects": lambda: filled("[", "{}", "]"),
    "names": lambda: "{" + ",".join(f'"{number:x}":1' for number in range(MIB // 10)) + "}",
    "nesting": lambda: "[" * (MIB // 2 - 100) + "]" * (MIB // 2 - 100),
    "depth again and again": lambda: filled("[", "[" * 60 + "]" * 60, "]"),
    "messages": lambda: filled("[", SAID, "]"),
    "parts": lambda: filled('[{"role":"user","content":[', PART, "]}]"),
    "wrong parts": lambda: filled('[{"role":"user","content":[', "{}", "]}]"),
    "calls": lambda: filled('[{"role":"assistant","content":"","tool_calls":[', CALL, "]}]"),
    "tools": lambda: filled("[", '{"type":"function","name":"f","function":{"name":"f"}}', "]"),
}
OF_CHATS = f'"messages":[{SAID}]'
FIELDS: list[tuple[Callable[[bytes], None], str, tuple[str, ...]]] = [
    (chat, OF_CHATS, ("messages", "tools", "stop", "logit_bias", "response_format", "tool_choice", "x")),
    (ollama, OF_CHATS, ("messages", "tools", "options", "format", "x")),
    (anthropic, OF_CHATS, ("messages", "tools", "system", "stop_sequences", "thinking", "x")),
    (response, '"input":"a"', ("input", "tools", "metadata", "instructions", "x")),
    (completion, '"prompt":"a"', ("prompt", "stop", "x")),
    (embedding, '"input":"a"', ("input", "x")),
]
WORST = {
    (chat, "tools", "numbers"), (chat, "stop", "objects"), (chat, "messages", "wrong parts"),
    (chat, "messages", "calls"), (chat, "messages", "digits"), (chat, "x", "depth again and again"),
    (chat, "x", "runs of digits"), (anthropic, "messages", "parts"), (ollama, "messages", "messages"),
    (ollama, "options", "names"), (response, "input", "objects"), (completion, "prompt", "ids below zero"),
    (completion, "prompt", "numbers and a text"), (embedding, "input", "nesting"),
}  # fmt: skip
ALL = {(read, name, kind) for read, _, names in FIELDS for name in names for kind in VALUES}


def slow(bodies: Set[tuple[Callable[[bytes], None], str, str]]) -> list[tuple[str, str, str, float]]:
    """Which of these take longer than the bound, and how long, in seconds."""
    assert bodies <= ALL
    values = {kind: VALUES[kind]() for _, _, kind in bodies}
    found = []
    for read, usual, names in FIELDS:
        for name, kind in ((name, kind) for of, name, kind in bodies if of is read and name in names):
            rest = "" if f'"{name}":' in usual else f"{usual},"
            data = f'{{"model":"small","max_tokens":1,{rest}"{name}":{values[kind]}}}'.encode()
            assert MIB * 0.9 < len(data) <= MIB, (name, kind, len(data))
            began_s = time.thread_time()
            with suppress(InvalidRequest):
                read(data)
            took_s = time.thread_time() - began_s
            if took_s > BOUND_S:
                found.append((read.__name__, name, kind, took_s))
    return found


def test_no_body_holds_the_other_clients_up() -> None:
    assert slow(WORST) == []


@pytest.mark.soak
def test_no_kind_of_value_in_any_field_does() -> None:
    assert slow(ALL) == []
