"""A gateway in the process of a test: its real sockets, on a free port, over a real mesh."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any

from nats.aio.client import Client

from infra.testing.choir_up import KEYS, connect_inside
from schemas.errors import NotReady, UnknownRequest
from schemas.subjects import LOCAL_TENANT, service_inbox
from services.chassis.identity import Identity
from services.chassis.nats.clock import BrokerClock
from services.chassis.process.cancelling import ended
from services.chassis.process.supervise import Loops
from services.chassis.settings import MeshSection
from services.chassis.telemetry.events import EventLog
from services.client.client import Choir
from services.gateway.http.app import build_app
from services.gateway.http.connection.listener import Listener
from services.gateway.http.context import GatewayContext
from services.gateway.openai.batches.runner import BatchRunner
from services.gateway.settings import GatewaySection

STOP_PATIENCE_S = 2.0
ACCEPTED_DEADLINE_S = 180.0
MEASURED_DEADLINE_S = 180.0


@asynccontextmanager
async def serving(mesh_url: str, **settings: Any) -> AsyncIterator[str]:
    """The address of a gateway with these settings, such as `http://127.0.0.1:40123`."""
    async with listening(mesh_url, **settings) as listener:
        yield f"http://127.0.0.1:{listener.port}"


@asynccontextmanager
async def listening(mesh_url: str, **settings: Any) -> AsyncIterator[Listener]:
    """A gateway with these settings."""
    section = GatewaySection(**{"port": 0, **settings})
    async with inside(mesh_url) as (mesh, connection):
        events = events_of(connection)
        clock = BrokerClock(connection)
        await clock.measure(MEASURED_DEADLINE_S)
        context = GatewayContext(mesh, section, connection, events, clock.now)
        await context.keyring.start()
        app = build_app(context)
        batches = Loops().start(BatchRunner(context).run(app), "batches")
        listener = Listener(app, section, changed=lambda: None)
        await listener.start(Loops())
        assert listener.problem is None, listener.problem
        try:
            yield listener
        finally:
            await listener.stop(STOP_PATIENCE_S)
            await ended((batches,))
            await context.settle()
            await events.close()


def events_of(connection: Client) -> EventLog:
    """Where a gateway under test tells what happens."""
    return EventLog(connection, Identity.of("gateway", "gateway-under-test"))


@asynccontextmanager
async def inside(mesh_url: str) -> AsyncIterator[tuple[Choir, Client]]:
    """What a gateway asks the mesh with, and its other connection."""
    section = MeshSection(url=mesh_url, nkey=KEYS.get(mesh_url))
    inbox = service_inbox("gateway", "gateway-under-test")
    connection = await connect_inside(mesh_url)
    try:
        async with Choir(
            section=section, name="gateway-under-test", tenant=LOCAL_TENANT, inbox=inbox
        ) as mesh:
            yield mesh, connection
    finally:
        with suppress(ConnectionError):  # the broker may be gone
            await connection.close()


async def accepted(mesh: Choir, request_id: str) -> None:
    """Returns when the mesh works on a request."""
    async with asyncio.timeout(ACCEPTED_DEADLINE_S):
        while True:
            try:
                await mesh.fetch(request_id)
            except NotReady:
                return
            except UnknownRequest:
                await asyncio.sleep(0.02)
