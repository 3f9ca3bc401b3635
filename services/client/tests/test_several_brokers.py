"""A client that was told of several brokers."""

from __future__ import annotations

import asyncio

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
