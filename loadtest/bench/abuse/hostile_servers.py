"""`python -m loadtest.bench.abuse.hostile_servers`: five servers that do an agent all the harm they can.

A line of JSON says their ports by their names. They end with their stdin. They have a process of their own at
a low priority: what is measured is what they cost an agent, not what they take of the machine.
"""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import json
import os
import sys
from collections.abc import Awaitable, Callable

NICENESS = 10
LISTED = 20_000
"""Names in a list that an agent takes: a longer one is cut off."""
BOMB = gzip.compress(bytes(100 * 1024**2), 1)
DRIP_S = 0.1
MODEL = "victim"

Serve = Callable[[str, asyncio.StreamWriter], Awaitable[None]]


async def _head(writer: asyncio.StreamWriter, status: int = 200, *more: str) -> None:
    lines = (f"HTTP/1.1 {status} X", "content-type: application/json", *more, "connection: close")
    await _say(writer, "\r\n".join((*lines, "", "")).encode())


async def _say(writer: asyncio.StreamWriter, data: bytes) -> None:
    writer.write(data)
    await writer.drain()


async def listing(path: str, writer: asyncio.StreamWriter) -> None:
    """As many models as are taken; what is generated is one line without end."""
    if path.endswith("/models"):
        listed = [{"id": f"model-{number}", "object": "model"} for number in range(LISTED)]
        page = json.dumps({"object": "list", "data": [*listed, {"id": MODEL}]}).encode()
        await _head(writer, 200, f"content-length: {len(page)}")
        await _say(writer, page)
        return
    await _head(writer)
    while True:
        await _say(writer, bytes(65_536).replace(b"\0", b"a"))


async def endless(_path: str, writer: asyncio.StreamWriter) -> None:
    """A list of models without end."""
    await _head(writer)
    await _say(writer, b'{"object": "list", "data": [')
    while True:
        await _say(writer, b'{"id": "a-name-of-a-model", "object": "model"},' * 1_000)


async def packed(_path: str, writer: asyncio.StreamWriter) -> None:
    """A hundred megabytes in few."""
    await _head(writer, 200, "content-encoding: gzip", f"content-length: {len(BOMB)}")
    await _say(writer, BOMB)


async def dripping(_path: str, writer: asyncio.StreamWriter) -> None:
    """A byte now and then."""
    await _head(writer)
    while True:
        await _say(writer, b" ")
        await asyncio.sleep(DRIP_S)


async def failing(_path: str, writer: asyncio.StreamWriter) -> None:
    """An error whose text has no end."""
    await _head(writer, 500)
    while True:
        await _say(writer, b"it went wrong, " * 4_000)


SERVERS: dict[str, Serve] = {
    "listing": listing,
    "endless": endless,
    "packed": packed,
    "dripping": dripping,
    "failing": failing,
}


def _handler(serve: Serve) -> Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]:
    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            head = await reader.readuntil(b"\r\n\r\n")
            await serve(head.split(b" ")[1].decode(), writer)
        writer.close()

    return handle


async def main() -> None:
    """Serves until stdin ends."""
    os.nice(NICENESS)
    running = {
        name: await asyncio.start_server(_handler(serve), "127.0.0.1", 0) for name, serve in SERVERS.items()
    }
    print(json.dumps({name: one.sockets[0].getsockname()[1] for name, one in running.items()}), flush=True)  # noqa: T201
    await asyncio.to_thread(sys.stdin.read)


if __name__ == "__main__":
    asyncio.run(main())
