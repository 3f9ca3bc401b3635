"""A client that was told of several brokers, or of one that nobody is at."""

from __future__ import annotations

import asyncio

import nats.aio.client
import pytest
from nats.aio.transport import TcpTransport

from schemas.errors import MeshUnreachable
from services.chassis.nats.connecting.ending import EndingTransport
from services.chassis.settings import MeshSection
from services.client.connection import open_connection


async def test_a_broker_that_says_nothing_is_passed_over(mesh_url: str) -> None:
    silent: list[asyncio.StreamWriter] = []
    server = await asyncio.start_server(lambda _reader, writer: silent.append(writer), "127.0.0.1", 0)
    host, port = server.sockets[0].getsockname()
    mesh = MeshSection(url=f"nats://{host}:{port},{mesh_url}")
    try:
        async with open_connection(mesh, "test", lambda: None, lambda _refusal: None) as client:
            assert client.connected_url is not None
            assert client.connected_url.geturl() == mesh_url
        assert silent
    finally:
        for writer in silent:
            writer.close()
        server.close()
        await server.wait_closed()


async def test_the_connection_of_a_client_ends_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nats.aio.client, "TcpTransport", TcpTransport)
    with pytest.raises(MeshUnreachable):
        async with open_connection(
            MeshSection(url="nats://127.0.0.1:1"), "test", lambda: None, lambda _refusal: None
        ):
            pass
    assert vars(nats.aio.client)["TcpTransport"] is EndingTransport
