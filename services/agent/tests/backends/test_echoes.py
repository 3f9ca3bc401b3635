"""What a server repeats of a request is left out of what is told of its errors."""

from __future__ import annotations

import json

import httpx
import pytest

from services.agent.backends.servers.echoes import LEFT_OUT, note_sent, without_echo
from services.agent.backends.servers.faults import excerpt

PROMPT = 'Where is the zwieselquartz?\n\tTell "me" of \\alpha, π and Größe 7.'


def send(*contents: str, **fields: object) -> None:
    """Notes a request with messages of these contents."""
    messages = [{"role": "user", "content": content} for content in contents]
    note_sent(
        httpx.Request("POST", "http://mac:1234", json={"model": "tiny", "messages": messages, **fields})
    )


@pytest.mark.parametrize(
    "echo",
    [
        PROMPT,
        " ".join(PROMPT.split()),
        json.dumps(PROMPT)[1:-1],
        json.dumps(PROMPT, ensure_ascii=False)[1:-1],
        json.dumps(json.dumps(PROMPT))[3:-3],
        repr(json.dumps(PROMPT))[2:-2],
        "zwieselquartz",
        "Where is the zwies",
    ],
)
async def test_a_prompt_is_left_out_however_a_server_writes_it(echo: str) -> None:
    send("a system prompt", PROMPT)
    told = without_echo(f"status 500: {{'error': 'bad input: {echo}'}}")
    assert told.startswith(f"status 500: {{'error': 'bad input: {LEFT_OUT}")
    assert told.rstrip(".\"'}\\") == f"status 500: {{'error': 'bad input: {LEFT_OUT}"


@pytest.mark.parametrize(
    "said",
    [
        "out of memory",
        "model 'tiny' not found",
        "This model's maximum context length is 256 tokens",
        "the role user cannot begin",
        "\\ud83d\\ude00 \\x \\",
        "",
    ],
)
async def test_a_servers_own_words_are_told(said: str) -> None:
    send(PROMPT, "hi", "out", 'How much "memory" has a model? The context is long.')
    assert without_echo(said) == said


async def test_a_short_prompt_counts_whole_and_every_text_of_a_request_counts() -> None:
    send("hunter2", stop=["firefly-moth"], nested={"grammar": "root ::= sesame"})
    said = "hunter2 hunter3, firefly-moth or root ::= sesame"
    assert without_echo(said) == f"{LEFT_OUT} hunter3, {LEFT_OUT} or {LEFT_OUT}"


async def test_what_was_no_json_and_what_was_never_sent_leaves_words_as_they_are() -> None:
    note_sent(httpx.Request("POST", "http://mac:1234", content=b"\xff no json"))
    assert without_echo("no json, it says") == "no json, it says"


async def test_a_key_is_left_out_also_where_a_part_of_it_is_quoted_or_nothing_else_was_sent() -> None:
    key = "sk-Proj_0123456789-abcdefghij"
    headers = {"authorization": f"Bearer {key}"}
    note_sent(httpx.Request("GET", "http://mac:1234/v1/models", headers=headers))
    assert without_echo(f"no such key: Bearer {key}.") == f"no such key: Bearer {LEFT_OUT}."
    assert without_echo(f"no such key: {key[:20]}...") == f"no such key: {LEFT_OUT}..."
    note_sent(httpx.Request("GET", "http://mac:1234/v1/models"))
    assert without_echo(key) == key


async def test_an_excerpt_is_one_line_without_the_prompt() -> None:
    send(PROMPT)
    assert excerpt(f"bad\ninput: {PROMPT} " + "x" * 1_000).startswith(f"bad input: {LEFT_OUT}")
