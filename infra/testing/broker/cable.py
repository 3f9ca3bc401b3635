"""A way to the broker that a test can cut and mend: a connection that is really lost."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from urllib.parse import urlparse

import nats

from infra.testing.mesh import eventually
from services.chassis.context import ServiceContext
from services.chassis.identity import Identity
from services.chassis.nats.connection import ConnectionEvents, connection_options
from services.chassis.settings import MeshSection

READ_BYTES = 64 * 1024


class Cable:
    """Carries what its clients and the broker say to each other while it is whole."""

    def __init__(self, broker_url: str) -> None:
        self._target = urlparse(broker_url)
        self._server: asyncio.Server | None = None
        self._port = 0
        self._ends: set[asyncio.StreamWriter] = set()
        self._ways: set[asyncio.Task[None]] = set()

    @property
    def url(self) -> str:
        """Where clients reach the broker through it."""
        return f"nats://127.0.0.1:{self._port}"

    async def mend(self) -> None:
        """Connections can be made from now on."""
        if self._server is None:
            self._server = await asyncio.start_server(self._connected, "127.0.0.1", self._port)
            self._port = self._server.sockets[0].getsockname()[1]

    def cut(self) -> None:
        """Every connection is lost, and no other can be made."""
        if self._server is not None:
            self._server.close()
            self._server = None
        for end in self._ends:
            end.transport.abort()

    async def cut_from(self, mesh: ServiceContext) -> None:
        """Every connection is lost, and a service has noticed."""
        self.cut()
        await eventually(lambda: not mesh.client.is_connected)

    async def end(self) -> None:
        """Returns when nothing of it is left."""
        self.cut()
        await asyncio.gather(*self._ways)

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        from_broker, to_broker = await asyncio.open_connection(self._target.hostname, self._target.port)
        self._ends |= {writer, to_broker}
        for source, sink in ((reader, to_broker), (from_broker, writer)):
            self._ways.add(asyncio.create_task(_carry(source, sink)))


async def _carry(source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
    with contextlib.suppress(ConnectionError):
        while block := await source.read(READ_BYTES):
            sink.write(block)
            await sink.drain()
    sink.transport.abort()


@asynccontextmanager
async def cable(broker_url: str) -> AsyncIterator[Cable]:
    """A cable to a broker, on a port of its own."""
    laid = Cable(broker_url)
    await laid.mend()
    try:
        yield laid
    finally:
        await laid.end()


@asynccontextmanager
async def mesh_on_a_cable(
    broker_url: str, service: str = "agent", instance: str | None = None
) -> AsyncIterator[tuple[ServiceContext, Cable]]:
    """What a service is given, over a connection that the test may cut; it tries again soon."""
    events = ConnectionEvents()
    identity = Identity.of(service, instance)
    async with cable(broker_url) as laid:
        options = connection_options(MeshSection(url=laid.url), identity, events)
        client = await nats.connect(**(options | {"reconnect_time_wait": 0.05}))
        try:
            yield ServiceContext(client, identity, events), laid
        finally:
            events.closing()
            await laid.mend()
            await client.close()
