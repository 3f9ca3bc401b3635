"""A bare nats-py responder in a process of its own: what a request costs without a mesh.

python -m loadtest.bench.echo nats://127.0.0.1:4222 SUBJECT
"""

from __future__ import annotations

import asyncio
import sys

import nats
import uvloop
from nats.aio.msg import Msg


async def serve(url: str, subject: str) -> None:
    """Sends every request back, until the process is ended."""
    connection = await nats.connect(url)

    async def echo(msg: Msg) -> None:
        await msg.respond(msg.data)

    await connection.subscribe(subject, cb=echo)
    await asyncio.Event().wait()


if __name__ == "__main__":
    uvloop.run(serve(sys.argv[1], sys.argv[2]))
