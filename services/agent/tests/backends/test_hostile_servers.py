"""Servers that say too much, or something else than they were asked: a bounded error, and nothing more."""

from __future__ import annotations

import asyncio
import gc
import gzip
import json
import resource
import sys
import weakref
from collections import Counter
from collections.abc import Awaitable, Callable
from types import FrameType
from typing import Any

import httpx
import pytest

from schemas.commands import ChatMessage
from schemas.errors import ChoirError, WorkerFailed
from schemas.requests.sampling import Sampling
from services.agent.backends.servers.bounded_http import (
    LINE_BYTES,
    LINE_TOKEN_BYTES,
    MOST_BYTES,
    MOST_ERROR_BYTES,
    transport,
)
from services.agent.backends.servers.faults import transport_fault
from services.agent.backends.servers.ollama import Ollama
from services.agent.backends.servers.openai import OpenAI
from services.agent.settings import ModelSection
from services.agent.tests.servers.http_server import HttpServer, Reply, Request, http_server
from services.agent.workers.external import look

BOMB = gzip.compress(bytes(100 * 1024**2), 1)
HI = (ChatMessage(role="user", content="hi"),)
MEGABYTE = 1024**2
MOST_GROWTH = 64 * MEGABYTE
SSE = "text/event-stream"
NDJSON = "application/x-ndjson"
KINDS = ("openai", "ollama")
SHORT = Sampling(max_tokens=8)

Handle = Callable[[Request, Reply], Awaitable[None]]


def backend_of(kind: str, server: HttpServer) -> OpenAI | Ollama:
    model = ModelSection.model_validate(
        {
            "name": "tiny",
            "server": {"type": "ollama" if kind == "ollama" else "lm_studio", "url": server.url},
        }
    )
    return Ollama(model) if kind == "ollama" else OpenAI(model)


def memory_bytes() -> int:
    """The most memory that this process has had."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


async def failure(kind: str, handle: Handle, do: str = "check") -> ChoirError:
    """The error of a look at a server, or of a text from it; the memory did not grow meanwhile."""
    async with http_server(handle) as server:
        backend = backend_of(kind, server)
        before = memory_bytes()
        with pytest.raises(ChoirError) as caught:
            if do == "check":
                await backend.check()
            else:
                await backend.generate(HI, SHORT, None)
        await backend.close()
    assert memory_bytes() - before < MOST_GROWTH
    assert len(caught.value.message) < 2_000
    return caught.value


def chunk_of(kind: str, text: str, **fields: Any) -> bytes:
    """A piece of a streamed text, as this kind of server says it."""
    if kind == "ollama":
        return json.dumps({"message": {"role": "assistant", "content": text}, **fields}).encode() + b"\n"
    choice = {"index": 0, "delta": {"content": text}, "finish_reason": None}
    return f"data: {json.dumps({'id': '1', 'object': 'x', 'choices': [choice], **fields})}\n\n".encode()


@pytest.mark.parametrize("kind", KINDS)
async def test_a_packed_answer_is_not_unpacked(kind: str) -> None:
    async def answer(request: Request, reply: Reply) -> None:
        assert request.headers["accept-encoding"] == "identity"
        await reply.send(
            f"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-encoding: gzip\r\n"
            f"content-length: {len(BOMB)}\r\nconnection: close\r\n\r\n".encode()
        )
        await reply.send(BOMB)

    error = await failure(kind, answer)
    assert isinstance(error, WorkerFailed) and "packed" in error.message


@pytest.mark.parametrize("kind", KINDS)
async def test_a_list_without_end_is_cut_off(kind: str) -> None:
    async def answer(request: Request, reply: Reply) -> None:
        await reply.head()
        await reply.send(b'{"object": "list", "models": [], "data": [')
        while True:
            await reply.send(b'{"id": "a-name-of-a-model", "object": "model"},' * 1_000)

    error = await failure(kind, answer)
    assert isinstance(error, WorkerFailed) and str(MOST_BYTES) in error.message


async def test_a_long_list_is_looked_through_once_and_nothing_is_made_of_each_of_its_models() -> None:
    listed = [{"id": f"model-{number}", "object": "model"} for number in range(20_000)]
    page = json.dumps({"object": "list", "data": [*listed, {"id": "tiny"}, {"id": 7}, "nothing"]}).encode()
    assert len(page) < MOST_BYTES
    called: Counter[str] = Counter()

    async def answer(request: Request, reply: Reply) -> None:
        await reply.whole(page)

    def count(frame: FrameType, event: str, _argument: object) -> None:
        if event == "call":
            called[frame.f_code.co_qualname] += 1

    async with http_server(answer) as server:
        backend = backend_of("openai", server)
        assert len(await backend.models()) == len(listed) + 1
        looks = []
        for _ in range(2):
            called.clear()
            sys.setprofile(count)
            try:
                await backend.check()
            finally:
                sys.setprofile(None)
            looks.append(called.total())
        await backend.close()
    # An object for each model would take several calls to be made; the same list again is not looked through.
    first, second = looks
    assert len(listed) < first < 2 * len(listed), looks
    assert 0 < second < first / 3, looks


@pytest.mark.parametrize("kind", KINDS)
async def test_an_error_without_end_is_cut_off(kind: str) -> None:
    sent = 0

    async def answer(request: Request, reply: Reply) -> None:
        nonlocal sent
        await reply.head(500, "text/plain")
        while True:
            await reply.send(b"x" * 65_536)
            sent += 65_536

    error = await failure(kind, answer, "generate")
    assert isinstance(error, WorkerFailed) and "500" in error.message
    assert sent < 100 * MOST_ERROR_BYTES


@pytest.mark.parametrize("kind", KINDS)
async def test_a_text_that_goes_on_after_max_tokens_is_cut_off(kind: str) -> None:
    async def answer(request: Request, reply: Reply) -> None:
        await reply.head(200, NDJSON if kind == "ollama" else SSE)
        while True:
            await reply.send(chunk_of(kind, "and so on "))

    error = await failure(kind, answer, "generate")
    assert isinstance(error, WorkerFailed) and "cut off" in error.message


@pytest.mark.parametrize("kind", KINDS)
async def test_a_line_without_end_is_cut_off_long_before_the_text_would_be(kind: str) -> None:
    """The client's library has a line several times over until its end has come."""

    async def answer(request: Request, reply: Reply) -> None:
        await reply.head(200, NDJSON if kind == "ollama" else SSE)
        while True:
            await reply.send(b"x" * 65_536)

    error = await failure(kind, answer, "generate")
    most = LINE_BYTES + SHORT.max_tokens * LINE_TOKEN_BYTES
    assert isinstance(error, WorkerFailed) and f"more than {most} bytes in a line" in error.message


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("end", [b"\n", b"\r"])
async def test_many_lines_are_no_long_one(kind: str, end: bytes) -> None:
    async def answer(request: Request, reply: Reply) -> None:
        await reply.head(200, NDJSON if kind == "ollama" else SSE)
        while True:
            await reply.send((b" " * 1_023 + end) * 64)

    error = await failure(kind, answer, "generate")
    assert isinstance(error, WorkerFailed) and "in a line" not in error.message


def test_an_error_of_ours_within_a_librarys_is_free_as_soon_as_it_is_forgotten() -> None:
    """In a circle of causes it would keep what the server has said until garbage is searched."""

    def fail() -> weakref.ref[WorkerFailed]:
        try:
            try:
                try:
                    raise WorkerFailed("cut off")
                except WorkerFailed as inner:
                    kept = weakref.ref(inner)
                    raise ValueError("broken") from inner
            except ValueError as error:
                raise transport_fault("http://server.test", error) from error
        except WorkerFailed as error:
            assert error.message == "cut off"
        return kept

    gc.disable()
    try:
        assert fail()() is None
    finally:
        gc.enable()


def test_authorities_are_read_once_for_all_servers() -> None:
    one, other = (transport("https://server.test", httpx.Limits(), None, proxies=False) for _ in range(2))
    assert one._inner._pool._ssl_context is other._inner._pool._ssl_context  # type: ignore[attr-defined]


@pytest.mark.parametrize("kind", KINDS)
async def test_headers_without_end_are_cut_off(kind: str) -> None:
    async def answer(request: Request, reply: Reply) -> None:
        await reply.send(b"HTTP/1.1 200 OK\r\n")
        while True:
            await reply.send(b"x-filler: " + b"y" * 8_000 + b"\r\n")

    assert isinstance(await failure(kind, answer), WorkerFailed)


@pytest.mark.parametrize("kind", KINDS)
async def test_a_redirect_is_not_followed(kind: str) -> None:
    async def secret(request: Request, reply: Reply) -> None:
        await reply.json({"data": [{"id": "tiny"}], "models": [{"model": "tiny"}]})

    async with http_server(secret) as inside:

        async def answer(request: Request, reply: Reply) -> None:
            await reply.send(
                f"HTTP/1.1 302 Found\r\nlocation: {inside.url}{request.path}\r\ncontent-length: 0\r\n"
                "connection: close\r\n\r\n".encode()
            )

        error = await failure(kind, answer)
        assert isinstance(error, WorkerFailed) and not inside.requests


async def test_figures_that_cannot_be_are_measured_here_instead() -> None:
    said = {"prompt_tokens": -5, "completion_tokens": 10**30, "total_tokens": 0}
    timings = {"prompt_ms": float("nan"), "predicted_ms": -1.0}

    async def answer(request: Request, reply: Reply) -> None:
        await reply.head(200, SSE)
        await reply.send(chunk_of("openai", "yes"))
        last = {"index": 0, "delta": {}, "finish_reason": "stop"}
        document = {"id": "1", "object": "x", "choices": [last], "usage": said, "timings": timings}
        await reply.send(f"data: {json.dumps(document)}\n\ndata: [DONE]\n\n".encode())

    async with http_server(answer) as server:
        backend = backend_of("openai", server)
        generated = await backend.generate(HI, SHORT, None)
        await backend.close()
    assert (generated.text, generated.prompt_tokens, generated.generated_tokens) == ("yes", 0, 1)
    assert generated.eval_ns >= 1 and generated.prompt_eval_ns > 0


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("begin", [b"", b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n\r\n"])
async def test_an_answer_that_comes_drop_by_drop_takes_no_longer_than_a_look_may(
    kind: str, begin: bytes
) -> None:
    """Each drop is in time, the answer is not. Without a head, what drips announces another answer."""

    async def answer(request: Request, reply: Reply) -> None:
        await reply.send(begin)
        while True:
            await reply.send(b" " if begin else b"HTTP/1.1 102 Processing\r\n\r\n")
            await asyncio.sleep(0.005)

    async with http_server(answer) as server:
        backend = backend_of(kind, server)
        with pytest.raises(WorkerFailed, match="which models it has"):
            await look(backend, 0.3)
        await backend.close()
