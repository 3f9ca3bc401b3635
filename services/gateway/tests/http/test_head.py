"""The head of a reply goes with its body in one piece; where no body comes it is not held back."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncIterator

import httpx
import pytest
import pytest_asyncio

from services.gateway.tests.raw import DEADLINE_S, connected, exchange
from services.gateway.tests.serving import serving

ASKED = b" / HTTP/1.1\r\nhost: localhost\r\n"
END = b"\r\n\r\n"
WITHOUT_ID = re.compile(rb"(?<=choir-request-id: )\w+|(?<=chatcmpl-)\w+")
OWN_WORDS = re.compile(rb'id: \w+:|"created":\d+,')


@pytest_asyncio.fixture
async def gateway(live_mesh: str) -> AsyncIterator[httpx.URL]:
    """A gateway as it is usually set."""
    async with serving(live_mesh) as url:
        yield httpx.URL(url)


@pytest.mark.parametrize("more", [b"", b"connection: close\r\n"], ids=["kept", "closed"])
async def test_a_client_is_woken_once_for_head_and_body(gateway: httpx.URL, more: bytes) -> None:
    first_part = await exchange(gateway, b"GET" + ASKED + more + b"\r\n")
    assert first_part.startswith(b"HTTP/1.1 200 ") and first_part.endswith(b"\r\n\r\nOllama is running")


async def test_a_head_without_a_body_is_sent_at_once(gateway: httpx.URL) -> None:
    head = await exchange(gateway, b"HEAD" + ASKED + b"\r\n")
    assert head.startswith(b"HTTP/1.1 200 ") and head.endswith(b"\r\n\r\n")


async def test_a_reply_of_an_empty_body_is_sent_at_once(gateway: httpx.URL) -> None:
    asked = b"OPTIONS / HTTP/1.1\r\nhost: localhost\r\norigin: http://localhost\r\n\r\n"
    assert (await exchange(gateway, asked)).startswith(b"HTTP/1.1 204 ")


@pytest.mark.parametrize("more", [b"", b"connection: close\r\n", b"origin: http://localhost\r\n"])
async def test_a_reply_that_is_ready_is_on_the_wire_as_any_other(gateway: httpx.URL, more: bytes) -> None:
    # Given a request that was answered from memory, so that the reply to an equal one is ready
    asked = chat(more)
    replies = [await exchange(gateway, asked) for _ in range(4)]
    assert [b"choir-cache: hit" in reply for reply in replies] == [False, True, True, True]

    # Then that one is the same but for its id, and so is each where several come at once
    written, *ready = [told(reply) for reply in replies[1:]]
    assert ready == [written, written]
    async with connected(gateway) as (reader, writer):
        writer.write(asked * 3)
        async with asyncio.timeout(DEADLINE_S):
            for _ in range(1 if b"close" in more else 3):
                head = await reader.readuntil(END)
                body = await reader.readexactly(len(replies[1].partition(END)[2]))
                assert told(head + body) == written


async def test_a_stream_begins_on_the_wire_as_uvicorn_would_begin_it(gateway: httpx.URL) -> None:
    # Given a stream whose head is written past uvicorn, and two whose head is not
    plain, closed, shared = [
        await streamed(gateway, more)
        for more in (b"", b"connection: close\r\n", b"origin: http://localhost\r\n")
    ]

    # Then they differ by what was asked for alone, and the text is the same
    assert b"transfer-encoding: chunked" in plain[0]
    assert [line for line in closed[0] if line != b"connection: close"] == plain[0]
    assert {line for line in shared[0] if not line.startswith((b"access-control-", b"vary:"))} == set(
        plain[0]
    )
    assert plain[1] == closed[1] == shared[1] and plain[1].endswith(b"data: [DONE]\n\n")


async def streamed(gateway: httpx.URL, more: bytes) -> tuple[list[bytes], bytes]:
    """The lines of a stream's head, in no order, and the events without what each request has of its own."""
    async with connected(gateway) as (reader, writer):
        writer.write(chat(b"choir-cache: off\r\n" + more, stream=True))
        async with asyncio.timeout(DEADLINE_S):
            head, body = await reader.readuntil(END), b""
            while size := int(await reader.readline(), 16):
                body += (await reader.readexactly(size + 2))[:-2]
    return told(head)[0], OWN_WORDS.sub(b"", WITHOUT_ID.sub(b"ID", body))


def told(reply: bytes) -> tuple[list[bytes], bytes]:
    """The lines of a reply's head, in no order, and its body."""
    head, _, body = WITHOUT_ID.sub(b"ID", reply).partition(END)
    return sorted(head.split(b"\r\n")), body


def chat(more: bytes, *, stream: bool = False) -> bytes:
    """A chat completion whose answer is the same each time; the question is another one for each `more`,
    unless it is a stream."""
    question = "?" if stream else more.decode() or "?"
    said = {"model": "choir-one", "messages": [{"role": "user", "content": question}], "stream": stream}
    body = json.dumps({**said, "temperature": 0}).encode()
    head = b"POST /v1/chat/completions HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n"
    return head + more + b"content-length: %d\r\n\r\n%s" % (len(body), body)
