"""A small HTTP server for tests that need to say every byte themselves: half a stream, garbage, silence.

It also knows when the other side hung up, which is how a cancellation is seen on a server's side.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

HEAD_END = b"\r\n\r\n"


@dataclass
class Request:
    """What a client asked."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> dict[str, Any]:
        """The body, which is a JSON object."""
        parsed: dict[str, Any] = json.loads(self.body or b"{}")
        return parsed


class Reply:
    """The open connection, to write a reply to."""

    def __init__(self, writer: asyncio.StreamWriter) -> None:
        self._writer = writer

    async def send(self, data: bytes) -> None:
        """Bytes as they are."""
        self._writer.write(data)
        await self._writer.drain()

    async def head(self, status: int = 200, content: str = "application/json") -> None:
        """A head whose body ends with the connection."""
        await self.send(
            f"HTTP/1.1 {status} x\r\ncontent-type: {content}\r\nconnection: close\r\n\r\n".encode()
        )

    async def whole(self, body: bytes, status: int = 200, content: str = "application/json") -> None:
        """A complete reply."""
        await self.head(status, content)
        await self.send(body)

    async def json(self, document: object, status: int = 200) -> None:
        """A JSON document."""
        await self.whole(json.dumps(document).encode(), status)

    async def begin_chunks(self, content: str) -> None:
        """A head whose body comes in chunks: one that ends early can be told from one that is complete."""
        await self.send(
            f"HTTP/1.1 200 OK\r\ncontent-type: {content}\r\ntransfer-encoding: chunked\r\n"
            "connection: close\r\n\r\n".encode()
        )

    async def chunk(self, data: bytes) -> None:
        """One chunk; an empty one ends the body."""
        await self.send(f"{len(data):x}\r\n".encode() + data + b"\r\n")


Handle = Callable[[Request, Reply], Awaitable[None]]


@dataclass
class HttpServer:
    """Answers every request with `handle`, which a test may exchange at any time."""

    handle: Handle
    port: int = 0
    requests: list[Request] = field(default_factory=list)
    hung_up: asyncio.Event = field(default_factory=asyncio.Event)
    left: list[str] = field(default_factory=list)
    """The paths of those requests whose client did not wait for the whole answer."""
    open: set[asyncio.Task[None]] = field(default_factory=set)

    @property
    def url(self) -> str:
        """Where it is."""
        return f"http://127.0.0.1:{self.port}"

    def asked(self, path: str) -> list[Request]:
        """What was asked on one path so far."""
        return [request for request in self.requests if request.path == path]

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection, one request."""
        task = asyncio.current_task()
        assert task is not None
        self.open.add(task)
        task.add_done_callback(self.open.discard)
        try:
            request = await _read(reader)
            self.requests.append(request)
            answering = asyncio.ensure_future(self.handle(request, Reply(writer)))
            listening = asyncio.ensure_future(reader.read(1))
            done, _ = await asyncio.wait([answering, listening], return_when=asyncio.FIRST_COMPLETED)
            if answering not in done:
                self.left.append(request.path)
                self.hung_up.set()
            answering.cancel()
            listening.cancel()
            await asyncio.gather(answering, listening, return_exceptions=True)
        except (asyncio.IncompleteReadError, ConnectionError):
            self.hung_up.set()
        except asyncio.CancelledError:
            return  # the test is over
        finally:
            writer.close()
            with suppress(ConnectionError):
                await writer.wait_closed()


async def _read(reader: asyncio.StreamReader) -> Request:
    head = (await reader.readuntil(HEAD_END)).decode()
    first, *lines = head.strip().split("\r\n")
    method, path, _ = first.split(" ")
    headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    body = await reader.readexactly(int(headers.get("content-length", 0)))
    return Request(method, path, headers, body)


@asynccontextmanager
async def http_server(handle: Handle, port: int = 0) -> AsyncIterator[HttpServer]:
    """Serves on loopback while the context is open; `port` 0 takes a free one."""
    server = HttpServer(handle)
    listening = await asyncio.start_server(server.serve, "127.0.0.1", port)
    server.port = listening.sockets[0].getsockname()[1]
    try:
        yield server
    finally:
        listening.close()
        for task in list(server.open):
            task.cancel()
        await asyncio.gather(*server.open, return_exceptions=True)
