"""A sample is taken whatever the connection does."""

from __future__ import annotations

import asyncio
import contextlib
from pathlib import Path

import nats
import nats.errors
import uvloop

from infra.broker.broker import Broker
from infra.host.children.processes import until
from services.chassis.identity import Identity
from services.chassis.process.supervise import Loops
from services.chassis.registry.host_sampler import HostSampler
from services.chassis.registry.lease import Load
from services.chassis.telemetry.events import EventLog
from services.chassis.telemetry.tracing import Tracing


def test_a_broker_that_has_gone_ends_no_sampler(tmp_path: Path) -> None:
    async def sampled_without_a_broker() -> None:
        # Given a service as it runs, on uvloop, and a broker that dies
        broker = Broker(tmp_path)
        await broker.start()
        client = await nats.connect(broker.url, max_reconnect_attempts=-1, error_cb=_ignore)
        events = EventLog(client, Identity("agent", "agent-1"))
        sampler = HostSampler(client, events, Tracing(), Load, 10.0, Loops())
        await sampler.sample()
        broker.kill()
        # When samples are taken meanwhile, then none of them fails
        await sampler.sample()
        assert await until(lambda: not client.is_connected, 180)
        await sampler.sample()
        with contextlib.suppress(RuntimeError, nats.errors.Error):
            await client.close()

    uvloop.run(asyncio.wait_for(sampled_without_a_broker(), 180))


async def _ignore(_error: Exception) -> None:
    """That the broker is gone is no news."""
