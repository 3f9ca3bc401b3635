"""A connection ends in bounded time, whatever the broker does."""

from __future__ import annotations

import asyncio
import json
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from urllib.parse import urlparse

import nats
import nats.aio.client
import pytest
from nats.aio.transport import TcpTransport

from infra.broker.broker import Broker
from infra.broker.provision import provision_at
from infra.host.operator_connection import connect_operator
from infra.testing.mesh import DEADLINE_S, eventually
from schemas.errors import MeshUnreachable
from services.chassis.identity import Identity
from services.chassis.nats import connection as connection_module
from services.chassis.nats.connecting.ending import EndingTransport
from services.chassis.nats.connection import ConnectionEvents, connection_options, open_broker
from services.chassis.process.cancelling import ended
from services.chassis.settings import MeshSection

NOBODY = MeshSection(url="nats://127.0.0.1:1")
WANTS_TLS = {"server_id": "still", "version": "2.12.0", "max_payload": 1 << 20, "tls_required": True}


@asynccontextmanager
async def broker_that_stands_still_in_the_handshake() -> AsyncIterator[tuple[str, asyncio.Event]]:
    """Its address, and an event: somebody has greeted it. No real one can be stopped at that very moment."""
    greeted = asyncio.Event()
    writers: list[asyncio.StreamWriter] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writers.append(writer)
        writer.write(b"INFO " + json.dumps(WANTS_TLS).encode() + b"\r\n")
        if await reader.read(1):
            greeted.set()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        yield f"nats://127.0.0.1:{server.sockets[0].getsockname()[1]}", greeted
    finally:
        for writer in writers:
            writer.transport.abort()
        server.close()


async def test_who_closes_in_the_midst_of_a_handshake_is_done_at_once(own_broker: Broker) -> None:
    # Given a client that has lost its broker, and greets another one that says no more
    async with broker_that_stands_still_in_the_handshake() as (url, greeted):
        mesh = MeshSection(url=f"{own_broker.url},{url}")
        events = ConnectionEvents()
        options = connection_options(mesh, Identity("agent", "a"), events) | {"connect_timeout": DEADLINE_S}
        client = await nats.connect(**options, tls=ssl.create_default_context())
        own_broker.kill()
        await asyncio.wait_for(greeted.wait(), DEADLINE_S)
        # When it is closed, then that ends
        events.closing()
        await asyncio.wait_for(client.close(), DEADLINE_S)
        assert client.is_closed


async def test_who_has_much_to_send_to_a_broker_that_stands_still_goes_to_another(
    own_broker: Broker, mesh_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection_module, "PING_INTERVAL_S", 0.5)
    events = ConnectionEvents()
    mesh = MeshSection(url=f"{own_broker.url},{mesh_url}")
    client = await nats.connect(**connection_options(mesh, Identity("agent", "a"), events))

    async def send() -> None:
        for _ in range(32):
            await client.publish("greeting", bytes(1 << 19))

    try:
        own_broker.pause()
        sending = asyncio.create_task(send())
        await eventually(
            lambda: (
                client.is_connected
                and str(client.connected_url and client.connected_url.geturl()) == mesh_url
            )
        )
        await asyncio.wait_for(sending, DEADLINE_S)
    finally:
        own_broker.resume()
        events.closing()
        await client.close()


async def test_who_waits_for_an_end_after_another_one_gave_up_is_told_of_the_end() -> None:
    # Given a connection that is closing, and never done: more is to be sent than is taken
    held: list[asyncio.StreamWriter] = []
    server = await asyncio.start_server(lambda _reader, writer: held.append(writer), "127.0.0.1", 0, limit=1)
    transport = EndingTransport()  # type: ignore[no-untyped-call]
    try:
        url = urlparse(f"nats://127.0.0.1:{server.sockets[0].getsockname()[1]}")
        await transport.connect(url, 1 << 16, int(DEADLINE_S))
        transport.write(bytes(32 << 20))  # type: ignore[no-untyped-call]
        transport.close()  # type: ignore[no-untyped-call]
        first = asyncio.create_task(transport.wait_closed())
        await asyncio.sleep(0)
        await ended({first})
        # When another one waits for its end
        await asyncio.wait_for(transport.wait_closed(), DEADLINE_S)
        # Then nothing is kept of it
        assert (
            transport._io_writer is not None and transport._io_writer.transport.get_write_buffer_size() == 0
        )
    finally:
        for writer in held:
            writer.transport.abort()
        server.close()


async def _operate(mesh: MeshSection) -> None:
    async def nothing() -> None:
        pass

    await connect_operator(mesh.url, mesh, nothing)


async def _provision(mesh: MeshSection) -> None:
    await provision_at(mesh.url, ())


@pytest.mark.parametrize("connects", [_operate, _provision])
async def test_each_kind_of_client_connects_so(
    connects: Callable[[MeshSection], object], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(nats.aio.client, "TcpTransport", TcpTransport)
    with pytest.raises(MeshUnreachable):
        await connects(NOBODY)  # type: ignore[misc]
    assert vars(nats.aio.client)["TcpTransport"] is EndingTransport


def test_services_connect_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nats.aio.client, "TcpTransport", TcpTransport)
    open_broker(NOBODY, Identity("agent", "a"), ConnectionEvents())
    assert vars(nats.aio.client)["TcpTransport"] is EndingTransport
