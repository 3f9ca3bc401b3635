"""Several workers of one `instant` model in one process, as one agent process serves many servers.

python -m loadtest.bench.instant_workers nats://127.0.0.1:4222 MODEL COUNT SLOTS DELAY_MS NAME
"""

from __future__ import annotations

import asyncio
import signal
import sys

import nats
import uvloop

from services.agent.service import Agent
from services.agent.settings import AgentSection, ModelSection, WorkersSection
from services.chassis.context import ServiceContext
from services.chassis.identity import Identity
from services.chassis.nats.connection import ConnectionEvents
from services.chassis.registry.lease import Lease


async def serve(url: str, model: str, count: int, slots: int, delay_ms: float, name: str) -> None:
    """Works until SIGTERM. Each worker has a work loop and a lease of its own; they share a connection."""
    connection = await nats.connect(url, inbox_prefix=b"_INBOX_agent")
    section = AgentSection(
        name=name, backend="instant", models=(ModelSection(name=model, slots=slots, delay_ms=delay_ms),)
    )
    for number in range(count):
        mesh = ServiceContext(connection, Identity.of("agent", f"{name}-{number}"), ConnectionEvents())
        agent = Agent(section, WorkersSection(enabled=False))
        await agent.start(mesh)
        await Lease(connection, mesh.identity, agent.load).start()
    ended = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, ended.set)
    await ended.wait()


if __name__ == "__main__":
    url, model, count, slots, delay_ms, name = sys.argv[1:]
    uvloop.run(serve(url, model, int(count), int(slots), float(delay_ms), name))
