"""What is answered with bare nats-py: a request without a mesh, and a durable one.

python -m loadtest.bench.bare nats://127.0.0.1:4222 echo|relay|worker

Each part has a process of its own. The echo sends a request back. The relay takes one and stores it in a
stream; the worker is given what is stored and stores the answer in another stream; the broker republishes the
answer to the relay, which replies: two durable writes and four hops, as `choir.ask` has them.
"""

from __future__ import annotations

import asyncio
import sys
from itertools import count

import nats
import uvloop
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.js import JetStreamContext, api

ECHO, DURABLE = "bench.echo", "bench.durable"
WORK, DONE, TOLD = "bench.work.", "bench.done.", "bench.told."
WORKERS = "workers"


async def make_streams(js: JetStreamContext) -> None:
    """The two streams, in files as those of the mesh."""
    republish = api.RePublish(src=f"{DONE}>", dest=f"{TOLD}>")
    await js.add_stream(
        api.StreamConfig(name="BENCH_WORK", subjects=[f"{WORK}>"], retention=api.RetentionPolicy.WORK_QUEUE)
    )
    await js.add_stream(api.StreamConfig(name="BENCH_DONE", subjects=[f"{DONE}>"], republish=republish))


async def echo(connection: Client) -> None:
    """Sends every request back."""

    async def send_back(msg: Msg) -> None:
        await msg.respond(msg.data)

    await connection.subscribe(ECHO, cb=send_back)
    await asyncio.Event().wait()


async def relay(connection: Client) -> None:
    """Stores what is asked, and replies with what is told."""
    js, numbers = connection.jetstream(), count()
    waiting: dict[str, Msg] = {}

    async def take(msg: Msg) -> None:
        number = str(next(numbers))
        waiting[number] = msg
        await js.publish(WORK + number, msg.data)

    async def tell(msg: Msg) -> None:
        asked = waiting.pop(msg.subject.removeprefix(TOLD), None)
        if asked is not None:
            await asked.respond(msg.data)

    await connection.subscribe(f"{TOLD}>", cb=tell)
    subscription = await connection.subscribe(DURABLE)
    tasks: set[asyncio.Task[None]] = set()
    async for msg in subscription.messages:  # a callback would take one after another
        task = asyncio.create_task(take(msg))
        tasks.add(task)
        task.add_done_callback(tasks.discard)


async def worker(connection: Client) -> None:
    """Stores each work's text as its answer."""
    js = connection.jetstream()

    async def work(msg: Msg) -> None:
        await js.publish(DONE + msg.subject.removeprefix(WORK), msg.data)
        await msg.ack()

    tasks: set[asyncio.Task[None]] = set()

    async def begin(msg: Msg) -> None:
        task = asyncio.create_task(work(msg))
        tasks.add(task)
        task.add_done_callback(tasks.discard)

    await js.subscribe(f"{WORK}>", durable=WORKERS, cb=begin, manual_ack=True)
    await asyncio.Event().wait()


async def serve(url: str, role: str) -> None:
    """Plays one part until the process is ended."""
    connection = await nats.connect(url)
    await {"echo": echo, "relay": relay, "worker": worker}[role](connection)


if __name__ == "__main__":
    uvloop.run(serve(sys.argv[1], sys.argv[2]))
