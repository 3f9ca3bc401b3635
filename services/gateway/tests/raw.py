"""HTTP by hand, for what no client would send."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

import httpx

DEADLINE_S = 180.0


@asynccontextmanager
async def connected(url: httpx.URL) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    """A connection to a gateway."""
    reader, writer = await asyncio.open_connection(url.host, url.port)
    try:
        yield reader, writer
    finally:
        if writer.transport.get_write_buffer_size():
            writer.transport.abort()  # nobody takes the rest any more
        writer.close()
        with suppress(ConnectionError):
            await writer.wait_closed()


async def exchange(url: httpx.URL, sent: bytes) -> bytes:
    """All that a gateway answers to these bytes, until it closes the connection or has sent a first part."""
    async with connected(url) as (reader, writer):
        writer.write(sent)
        async with asyncio.timeout(DEADLINE_S):
            return await reader.read(65_536)
