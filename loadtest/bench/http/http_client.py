"""A lean HTTP/1.1 client for measurements: one connection, one request at a time, nothing that is not needed.

A client library would take longer than what it measures, on the same cores.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

from schemas.errors import BrokerUnavailable, InternalError

HOST = "127.0.0.1"
LINE_LIMIT = 1024 * 1024
READY_DEADLINE_S = 60.0


class HttpConnection:
    """A connection that is kept. Failures are errors: a benchmark that loses something has no figures."""

    def __init__(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        port: int,
        headers: Sequence[tuple[str, str]] = (),
    ) -> None:
        self._reader = reader
        self._writer = writer
        self._head = f"host: {HOST}:{port}\r\ncontent-type: application/json\r\n" + "".join(
            f"{name}: {value}\r\n" for name, value in headers
        )

    async def post(self, path: str, body: bytes) -> bytes:
        """The body of the reply."""
        return b"".join([part async for part in self.stream(path, body)])

    async def stream(self, path: str, body: bytes) -> AsyncIterator[bytes]:
        """The parts of the reply's body, as the server sent them."""
        head = f"POST {path} HTTP/1.1\r\n{self._head}"
        self._writer.write(f"{head}content-length: {len(body)}\r\n\r\n".encode() + body)
        lines = (await self._reader.readuntil(b"\r\n\r\n")).decode("latin-1").lower().split("\r\n")
        headers = dict(line.split(": ", 1) for line in lines[1:] if ": " in line)
        if "content-length" in headers:
            parts = [await self._reader.readexactly(int(headers["content-length"]))]
        else:
            parts = []
        if lines[0].split(" ")[1] != "200":
            raise InternalError(f"{path} says {lines[0]}: {b''.join(parts)[:300]!r}")
        for part in parts:
            yield part
        if headers.get("transfer-encoding") == "chunked":
            while size := int(await self._reader.readline(), 16):
                yield await self._reader.readexactly(size)
                await self._reader.readexactly(2)
            await self._reader.readline()


@asynccontextmanager
async def http_connection(
    port: int, headers: Sequence[tuple[str, str]] = ()
) -> AsyncIterator[HttpConnection]:
    """Open while the context is; each request says these headers."""
    reader, writer = await asyncio.open_connection(HOST, port, limit=LINE_LIMIT)
    try:
        yield HttpConnection(reader, writer, port, headers)
    finally:
        writer.close()
        await writer.wait_closed()


async def until_listening(port: int) -> None:
    """Returns when somebody takes connections there."""
    async with asyncio.timeout(READY_DEADLINE_S):
        while True:
            try:
                async with http_connection(port):
                    return
            except OSError:
                await asyncio.sleep(0.1)


def said(event: bytes) -> str | None:
    """The text of a chat completion's event; None for one that has none, or that ends the stream."""
    data = next((line[6:] for line in event.split(b"\n") if line.startswith(b"data: ")), b"[DONE]")
    if data == b"[DONE]":
        return None
    choices: list[dict[str, Any]] = json.loads(data)["choices"]
    text: str | None = choices[0]["delta"].get("content") if choices else None
    return text or None


def require(condition: bool, what: str) -> None:
    """BrokerUnavailable with `what` if the mesh under measurement did not do what it is measured for."""
    if not condition:
        raise BrokerUnavailable(what)
