"""Limits of size and time: what is too large or too slow is refused, and holds nothing."""

from __future__ import annotations

import asyncio
import gzip
import json
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, suppress
from typing import Any

import httpx
import pytest
import pytest_asyncio
from starlette.types import Receive, Scope, Send

from infra.testing.mesh import eventually
from services.chassis.process.supervise import Loops
from services.gateway.http.connection import transport
from services.gateway.http.connection.addresses import Addresses
from services.gateway.http.connection.listener import Listener
from services.gateway.http.connection.protocol import MANY_OPEN
from services.gateway.settings import GatewaySection
from services.gateway.tests.raw import DEADLINE_S, connected, exchange
from services.gateway.tests.serving import serving

HEAD, BODY, MUCH = 2_048, 4_096, 32 << 20
WHOLE = b"GET / HTTP/1.1\r\nhost: localhost\r\n\r\n"
START = b"POST /api/show HTTP/1.1\r\nhost: localhost\r\n"
OF_OPENAI = {"error": {"message", "type", "param", "code"}}
SHAPES: dict[str, Any] = {
    "/api/chat": {"error"},
    "/v1/chat/completions": OF_OPENAI,
    "/v1/responses": OF_OPENAI,
    "/v1/messages": {"type", "error"},
}
"""What a client of each dialect finds in an error."""


def start_of(path: str) -> bytes:
    """The head of a request of a dialect, but for the length of its body."""
    return b"POST %s HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n" % path.encode()


def problem_of(path: str, status: int, reply: bytes) -> str:
    """What an error says that has this status and the shape of the path's dialect."""
    head, _, body = reply.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 %d " % status), (path, reply)
    error = json.loads(body)
    if SHAPES[path] is OF_OPENAI:
        assert {"error": set(error["error"])} == OF_OPENAI, (path, error)
        assert error["error"]["type"] == "invalid_request_error", (path, error)
        return str(error["error"]["message"])
    assert set(error) == SHAPES[path], (path, error)
    said = error["error"]
    if path == "/v1/messages":
        assert (error["type"], set(said)) == ("error", {"type", "message"}), error
        said = said["message"]
    assert isinstance(said, str), (path, error)
    return said


@pytest_asyncio.fixture
async def small(live_mesh: str) -> AsyncIterator[httpx.URL]:
    """A gateway that takes little, and waits for ever."""
    patient = {"head_timeout_s": 3_600.0, "body_timeout_s": 3_600.0}
    async with serving(live_mesh, max_head_bytes=HEAD, max_body_bytes=BODY, **patient) as url:
        yield httpx.URL(url)


@pytest_asyncio.fixture
async def impatient(live_mesh: str) -> AsyncIterator[httpx.URL]:
    """A gateway that waits for heads a short time."""
    async with serving(live_mesh, head_timeout_s=0.3) as url:
        yield httpx.URL(url)


@pytest.mark.parametrize(
    "head",
    [
        b"GET / HTTP/1.1\r\nhost: localhost\r\nx: " + b"a" * HEAD + b"\r\n\r\n",
        b"GET /" + b"a" * HEAD + b" HTTP/1.1\r\nhost: localhost\r\n\r\n",
        b"GET / HTTP/1.1\r\nhost: localhost\r\nx: " + b"a" * (HEAD + 1),
        b"GET / HTTP/1.1\r\n" + b"x: y\r\n" * HEAD,
        b"GET / HTTP/1.1\r\nhost: localhost\r\n" + b"x:\r\n" * (HEAD // 3) + b"\r\n",
    ],
    ids=["a long field", "a long path", "a field without end", "fields without end", "many small fields"],
)
async def test_a_head_that_is_too_large_is_refused(small: httpx.URL, head: bytes) -> None:
    assert (await exchange(small, head)).startswith(b"HTTP/1.1 431 ")


async def test_a_head_of_the_largest_size_is_answered(small: httpx.URL) -> None:
    head = b"GET / HTTP/1.1\r\nhost: localhost\r\nx: " + b"a" * (HEAD - 64) + b"\r\n\r\n"
    assert (await exchange(small, head)).startswith(b"HTTP/1.1 200 ")


@pytest.mark.parametrize("sent", [b"", b"GET / HTTP/1.1\r\nhost: local"], ids=["nothing", "half a head"])
async def test_a_head_that_does_not_come_is_not_waited_for(impatient: httpx.URL, sent: bytes) -> None:
    assert (await exchange(impatient, sent)).startswith(b"HTTP/1.1 408 ")


async def test_a_head_that_comes_byte_by_byte_has_one_deadline(impatient: httpx.URL) -> None:
    async with connected(impatient) as (reader, writer), asyncio.timeout(DEADLINE_S):
        writer.write(b"GET / HTTP/1.1\r\nx: ")
        reading = asyncio.ensure_future(reader.read())
        while not reading.done():
            writer.write(b"a")
            await asyncio.wait((reading,), timeout=0.05)
        assert b" 408 " in reading.result()


async def test_a_body_that_does_not_come_is_not_waited_for(live_mesh: str) -> None:
    async with serving(live_mesh, body_timeout_s=0.3) as url:
        replies = await asyncio.gather(
            *(exchange(httpx.URL(url), start_of(path) + b"content-length: 100\r\n\r\n{") for path in SHAPES)
        )
    for path, reply in zip(SHAPES, replies, strict=True):
        assert "was not there within 0.3 s" in problem_of(path, 400, reply)


@pytest.mark.parametrize(
    "framing", [b"content-length: 500\r\n\r\n{", b"transfer-encoding: chunked\r\n\r\n1\r\n{\r\n"]
)
async def test_who_ends_within_a_body_is_told_so_and_others_are_answered(
    small: httpx.URL, framing: bytes
) -> None:
    for path in SHAPES:
        async with connected(small) as (reader, writer), asyncio.timeout(DEADLINE_S):
            # When a client closes its half of the connection within a body
            writer.write(start_of(path) + framing)
            writer.write_eof()

            # Then it reads what is wrong, and that is the end
            assert "the body ended before its end" in problem_of(path, 400, await reader.read())
    assert (await exchange(small, WHOLE)).startswith(b"HTTP/1.1 200 ")


@pytest.mark.parametrize("sent", [b"", WHOLE[:20], WHOLE, START + b"content-length: 2\r\n\r\n{}"])
async def test_who_ends_anywhere_else_is_left_at_once(small: httpx.URL, sent: bytes) -> None:
    """A client that has closed its half cannot be told from one that has gone and wants nothing more."""
    async with connected(small) as (reader, writer), asyncio.timeout(DEADLINE_S):
        writer.write(sent)
        writer.write_eof()
        assert (await reader.read())[:9] in (b"", b"HTTP/1.1 ")


CHUNKED = START + b"content-type: application/json\r\ntransfer-encoding: chunked\r\n\r\n"


async def test_a_body_may_come_byte_by_byte(small: httpx.URL) -> None:
    body = b'{"model": "choir-one"}'
    head = START + b"content-type: application/json\r\ncontent-length: %d\r\n\r\n" % len(body)
    for sent in (head + body, CHUNKED + b"".join(b"1\r\n%c\r\n" % one for one in body) + b"0\r\n\r\n"):
        async with connected(small) as (reader, writer), asyncio.timeout(DEADLINE_S):
            for place in range(len(sent)):
                writer.write(sent[place : place + 1])
                await asyncio.sleep(0)
            assert (await reader.readline()).startswith(b"HTTP/1.1 200 ")


@pytest.mark.parametrize("field", [b"x: y\r\n", b"a"], ids=["fields without end", "a field without end"])
async def test_fields_behind_a_body_have_the_limit_of_a_head(small: httpx.URL, field: bytes) -> None:
    async with connected(small) as (reader, writer), asyncio.timeout(DEADLINE_S):
        writer.write(CHUNKED + b"2\r\n{}\r\n0\r\nx: ")
        reading = asyncio.ensure_future(reader.read())
        while not reading.done():
            writer.write(field * 100)
            await asyncio.wait((reading,), timeout=0.01)
        assert reading.result().startswith(b"HTTP/1.1 431 ")


async def test_a_field_behind_a_body_says_nothing() -> None:
    async def telling(scope: Scope, receive: Receive, send: Send) -> None:
        while (await receive()).get("more_body"):
            pass
        names = b",".join(name for name, _ in scope["headers"])
        await send({"type": "http.response.start", "status": 200, "headers": [(b"names", names)]})
        await send({"type": "http.response.body", "body": b""})

    listener = Listener(telling, GatewaySection(port=0), changed=lambda: None)
    await listener.start(Loops())
    sent = CHUNKED + b"2\r\n{}\r\n0\r\nx-api-key: k\r\n\r\n"
    reply = await exchange(httpx.URL(f"http://127.0.0.1:{listener.port}"), sent)
    assert b"names: host,content-type,transfer-encoding\r\n" in reply
    await listener.stop()


async def test_a_body_that_goes_on_after_its_reply_has_a_deadline(live_mesh: str) -> None:
    async with (
        serving(live_mesh, body_timeout_s=0.3) as url,
        connected(httpx.URL(url)) as (reader, writer),
        asyncio.timeout(DEADLINE_S),
    ):
        writer.write(b"GET / HTTP/1.1\r\nhost: localhost\r\ntransfer-encoding: chunked\r\n\r\n")
        reading = asyncio.ensure_future(reader.read())
        while not reading.done():
            writer.write(b"1\r\na\r\n")
            await asyncio.wait((reading,), timeout=0.05)
        assert reading.result().endswith(b"Ollama is running")


async def test_a_body_that_is_too_large_is_refused_before_it_is_there(small: httpx.URL) -> None:
    declared = b"content-length: %d\r\n\r\n" % (BODY + 1)
    chunk = b"%x\r\n" % (BODY + 1) + b" " * (BODY + 1) + b"\r\n"
    for path in SHAPES:
        for framing in (declared, b"transfer-encoding: chunked\r\n\r\n" + chunk):
            reply = await exchange(small, start_of(path) + framing)
            assert f"more than {BODY} bytes" in problem_of(path, 413, reply)


@pytest.mark.parametrize(
    "sent",
    [
        b"GET / HTTP/1.1\r\nx: " + b"a" * MUCH,
        START + b"x: " + b"a" * HEAD + b"\r\ncontent-length: %d\r\n\r\n" % MUCH + bytes(MUCH),
    ],
    ids=["a head", "a body after its head"],
)
async def test_who_still_sends_is_told_in_order_why_it_was_refused(small: httpx.URL, sent: bytes) -> None:
    """A socket that is closed while bytes wait in it resets the connection, and some systems then forget what
    came over it and was not read yet."""
    async with connected(small) as (reader, writer), asyncio.timeout(DEADLINE_S):
        writer.write(sent)
        assert (await reader.read()).startswith(b"HTTP/1.1 431 ")


async def test_a_reply_that_goes_on_when_its_client_is_refused_is_dropped() -> None:
    """A second request may have too large a head while the first one's reply is being written."""
    refused, ended = asyncio.Event(), asyncio.get_running_loop().create_future()

    async def talking(_scope: Scope, _receive: Receive, send: Send) -> None:
        try:
            await send({"type": "http.response.start", "status": 200, "headers": []})
            while not refused.is_set():
                await send({"type": "http.response.body", "body": b"on ", "more_body": True})
                await asyncio.sleep(0.01)
            await send({"type": "http.response.body", "body": b"and on", "more_body": True})
            await send({"type": "http.response.body", "body": b"", "more_body": False})
            ended.set_result("in order")
        except BaseException as error:
            ended.set_result(repr(error))
            raise

    listener = Listener(talking, GatewaySection(port=0, max_head_bytes=HEAD), changed=lambda: None)
    await listener.start(Loops())
    async with (
        connected(httpx.URL(f"http://127.0.0.1:{listener.port}")) as (reader, writer),
        asyncio.timeout(DEADLINE_S),
    ):
        writer.write(b"GET / HTTP/1.1\r\nhost: localhost\r\n\r\n")
        await reader.readuntil(b"on ")
        writer.write(b"GET / HTTP/1.1\r\nx: " + b"a" * (HEAD + 1))
        assert b" 431 " in await reader.read()
        refused.set()
        assert await ended == "in order"
    await listener.stop()


async def test_who_sends_for_ever_is_left(live_mesh: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transport, "LINGER_S", 0.3)
    async with (
        serving(live_mesh, head_timeout_s=0.1) as url,
        connected(httpx.URL(url)) as (reader, writer),
        asyncio.timeout(DEADLINE_S),
    ):
        writer.write(b"GET / HTTP/1.1\r\nx: ")
        assert (await reader.read()).startswith(b"HTTP/1.1 408 ")
        with pytest.raises(ConnectionError):
            while True:
                writer.write(b"a")
                await writer.drain()
                await asyncio.sleep(0.01)


async def test_a_body_of_the_largest_size_is_read(small: httpx.URL) -> None:
    body = b'{"model": "choir-one"}'.ljust(BODY)
    reply = await exchange(small, START + b"content-length: %d\r\n\r\n" % BODY + body)
    assert reply.startswith(b"HTTP/1.1 200 ")


async def test_a_body_that_is_nested_too_deep_is_refused(small: httpx.URL) -> None:
    for depth, status in ((63, 200), (64, 400), (1_000, 400)):
        body = b'{"model": "choir-one", "x": ' + b"[" * depth + b"]" * depth + b"}"
        reply = await exchange(small, START + b"content-length: %d\r\n\r\n" % len(body) + body)
        assert reply.startswith(b"HTTP/1.1 %d " % status), (depth, reply)
        assert (status == 200) != (b"nested" in reply or b"no JSON" in reply), (depth, reply)


async def test_a_body_that_was_compressed_is_not_unpacked(small: httpx.URL) -> None:
    """A few bytes could be gigabytes."""
    body = gzip.compress(b'{"model": "choir-one"}'.ljust(64 * BODY))
    head = START + b"content-encoding: gzip\r\ncontent-length: %d\r\n\r\n" % len(body)
    reply = await exchange(small, head + body)
    assert reply.startswith(b"HTTP/1.1 400 ") and b"no JSON" in reply


async def test_a_request_that_is_no_http_is_a_400(small: httpx.URL) -> None:
    for sent in (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", b"GET\r\n\r\n", b"\r\n\r\nhello\r\n"):
        assert (await exchange(small, sent)).startswith(b"HTTP/1.1 400 ")


async def test_a_reader_who_takes_nothing_is_left() -> None:
    ended = asyncio.Event()

    async def endless(_scope: Scope, _receive: Receive, send: Send) -> None:
        try:
            await send({"type": "http.response.start", "status": 200, "headers": []})
            while listener.connections:
                await send({"type": "http.response.body", "body": bytes(65_536), "more_body": True})
        finally:
            ended.set()

    listener = Listener(endless, GatewaySection(port=0, write_timeout_s=0.2), changed=lambda: None)
    await listener.start(Loops())
    async with connected(httpx.URL(f"http://127.0.0.1:{listener.port}")) as (reader, writer):
        reader._transport.pause_reading()  # type: ignore[attr-defined]
        writer.write(b"GET / HTTP/1.1\r\nhost: localhost\r\n\r\n")
        async with asyncio.timeout(DEADLINE_S):
            await ended.wait()
        assert listener.connections == 0
    await listener.stop()


async def test_an_address_has_so_many_connections_open_and_others_notice_nothing(live_mesh: str) -> None:
    async with serving(live_mesh, max_connections_per_address=3) as url, AsyncExitStack() as stack:
        gateway = httpx.URL(url)

        # Given an address that opens as many as it may, says nothing or half a head, and opens more
        for sent in (b"", b"GET / HT", b"GET / HTTP/1.1\r\nhost: localhost\r\n\r\n"):
            _, writer = await stack.enter_async_context(connected(gateway))
            writer.write(sent)
        refused = [await exchange(gateway, WHOLE) for _ in range(2)]

        # Then it is told why, and another address is answered
        for reply in refused:
            assert reply.startswith(b"HTTP/1.1 429 ") and b"connection: close" in reply
            assert reply.endswith(MANY_OPEN + b'"}')
        assert await from_other_address(gateway, WHOLE) == b"HTTP/1.1 200 OK"

        # And when one of its own has gone it is answered again
        writer.close()

        async def answered() -> bool:
            return (await exchange(gateway, WHOLE)).startswith(b"HTTP/1.1 200 ")

        await eventually(answered)


async def test_who_is_refused_and_stays_is_not_told_for_ever(live_mesh: str) -> None:
    async with serving(live_mesh, max_connections_per_address=2) as url, AsyncExitStack() as stack:
        gateway = httpx.URL(url)
        for _ in range(4):  # two that are taken, two that are told and go on reading
            await stack.enter_async_context(connected(gateway))
        reader, _ = await stack.enter_async_context(connected(gateway))
        async with asyncio.timeout(DEADLINE_S):
            with suppress(ConnectionError):
                assert await reader.read() == b""
        assert await from_other_address(gateway, WHOLE) == b"HTTP/1.1 200 OK"


async def from_other_address(url: httpx.URL, sent: bytes) -> bytes:
    """The first line of what is answered to another address of this host."""
    reader, writer = await asyncio.open_connection(url.host, url.port, local_addr=("127.0.0.2", 0))
    async with asyncio.timeout(DEADLINE_S):
        writer.write(sent)
        line = await reader.readline()
    writer.close()
    await writer.wait_closed()
    return line.strip()


async def test_connections_of_a_trusted_proxy_are_not_counted(live_mesh: str) -> None:
    settings = {"max_connections_per_address": 1, "trusted_proxies": ("127.0.0.0/8",)}
    async with serving(live_mesh, **settings) as url, connected(httpx.URL(url)):
        assert (await exchange(httpx.URL(url), WHOLE)).startswith(b"HTTP/1.1 200 ")


def test_a_host_of_ipv6_is_counted_by_its_network() -> None:
    addresses = Addresses(2)
    told = [
        addresses.enter(one)[0] for one in ("2001:db8::1", "2001:db8::2", "2001:db8::3", "2001:db8:0:1::1")
    ]
    assert told == ["taken", "taken", "told", "taken"]
    assert [addresses.enter(one)[0] for one in ("::ffff:192.0.2.1", "192.0.2.1", "192.0.2.1")][-1] == "told"
