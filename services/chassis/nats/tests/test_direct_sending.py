"""What is sent directly comes in order with what is published, as nats-py would have sent it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import nats
from nats.aio.client import Client
from nats.aio.msg import Msg

from infra.testing.plugin import all_read
from services.chassis.nats.direct.sending import send_directly

DEADLINE_S = 180.0
INFO = b'INFO {"server_id":"x","version":"2.10.0","proto":1,"headers":true,"max_payload":1048576}\r\n'
HEADERS = {"traceparent": "00-1-2-01", "Choir-New": "1"}
LARGE = b"x" * 65_536


async def send(client: Client, subject: str, payload: bytes) -> bool:
    """As a client of the mesh does; whether it went directly."""
    if send_directly(client, subject, "reply.to", payload, HEADERS):
        return True
    await client.publish(subject, payload, reply="reply.to", headers=HEADERS)
    return False


async def test_it_is_the_message_that_would_have_been_published(connection: Client, mesh_url: str) -> None:
    heard: asyncio.Queue[Msg] = asyncio.Queue()
    await connection.subscribe("sending.own", cb=heard.put)
    await all_read(connection)
    client = await nats.connect(mesh_url)
    before = dict(client.stats)
    await client.publish("sending.own", b"said", reply="reply.to", headers=HEADERS)
    once = {name: client.stats[name] - before[name] for name in before}
    assert await send(client, "sending.own", b"said")
    assert {name: client.stats[name] - before[name] for name in before} == {
        name: 2 * value for name, value in once.items()
    }
    async with asyncio.timeout(DEADLINE_S):
        published, sent = await heard.get(), await heard.get()
    await client.close()
    for msg in (published, sent):
        assert (msg.subject, msg.reply, msg.data, msg.headers) == (
            "sending.own",
            "reply.to",
            b"said",
            HEADERS,
        )


async def test_it_comes_in_order_with_what_is_published(connection: Client, mesh_url: str) -> None:
    heard: list[int] = []

    async def hear(msg: Msg) -> None:
        heard.append(int(msg.data[:8]))

    await connection.subscribe("sending.own", cb=hear)
    await all_read(connection)
    client = await nats.connect(mesh_url)
    directly = 0
    for number in range(600):
        said = b"%08d" % number + (LARGE if number % 100 == 50 else b"")
        if number % 3:
            directly += await send(client, "sending.own", said)
        else:
            await client.publish("sending.own", said)
        if number % 7 == 0:
            await asyncio.sleep(0)
    async with asyncio.timeout(DEADLINE_S):
        while len(heard) < 600:  # noqa: ASYNC110  (what comes is counted)
            await asyncio.sleep(0.01)
    await client.close()
    assert heard == list(range(600)) and directly > 0


class SlowBroker:
    """Says what a broker says, and reads while it `reads`."""

    def __init__(self) -> None:
        self.reads = asyncio.Event()
        self.reads.set()
        self.read = bytearray()
        self._writers: list[asyncio.StreamWriter] = []

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.append(writer)
        writer.write(INFO)
        while data := await reader.read(1 << 16):
            self.read += data
            if b"PING\r\n" in data:
                writer.write(b"PONG\r\n")
            await self.reads.wait()

    def hang_up(self) -> None:
        """Ends all connections."""
        for writer in self._writers:
            writer.close()
        self._writers.clear()

    @property
    def numbers(self) -> list[int]:
        """Of the messages that came, in order."""
        return [int(line[:8]) for line in bytes(self.read).split(b"\r\n") if line[:8].isdigit()]

    async def has_read(self, count: int) -> list[int]:
        """The numbers, once so many have come."""
        async with asyncio.timeout(DEADLINE_S):
            while len(self.numbers) < count:  # noqa: ASYNC110  (what comes is counted)
                await asyncio.sleep(0.01)
        return self.numbers


@asynccontextmanager
async def connected() -> AsyncIterator[tuple[SlowBroker, Client]]:
    broker = SlowBroker()
    server = await asyncio.start_server(broker.serve, "127.0.0.1", 0)
    client = await nats.connect(
        f"nats://127.0.0.1:{server.sockets[0].getsockname()[1]}",
        flush_timeout=DEADLINE_S,
        reconnect_time_wait=1,  # an outage that is seen
        max_reconnect_attempts=-1,
    )
    try:
        yield broker, client
    finally:
        broker.reads.set()
        await client.close()
        broker.hang_up()
        server.close()
        await server.wait_closed()


async def test_behind_a_broker_that_is_slow_to_read_it_goes_the_usual_way() -> None:
    async with connected() as (broker, client):
        broker.reads.clear()
        sent = 0
        async with asyncio.timeout(DEADLINE_S):
            while await send(client, "slow", b"%08d" % sent + LARGE):
                sent += 1
        for number in range(sent + 1, sent + 5):
            assert not await send(client, "slow", b"%08d" % number)
        broker.reads.set()
        assert await broker.has_read(sent + 5) == list(range(sent + 5))


async def test_in_an_outage_it_goes_the_usual_way_and_comes_after_it() -> None:
    async with connected() as (broker, client):
        assert await send(client, "outage", b"%08d" % 0)
        await broker.has_read(1)
        broker.hang_up()
        async with asyncio.timeout(DEADLINE_S):
            while client.is_connected:  # noqa: ASYNC110  (it notices)
                await asyncio.sleep(0.001)
        for number in range(1, 11):
            assert not await send(client, "outage", b"%08d" % number)
        assert await broker.has_read(11) == list(range(11))


async def test_what_is_sent_at_the_end_is_written() -> None:
    async with connected() as (broker, client):
        await client.publish("end", b"%08d" % 0)
        assert await send(client, "end", b"%08d" % 1)
        await client.close()
        assert not send_directly(client, "end", "reply.to", b"late", HEADERS)
        assert await broker.has_read(2) == [0, 1]
