"""Whether the servers of a cluster have agreed, so that all of them keep what is stored from now on."""

from __future__ import annotations

import asyncio
import contextlib

import nats.errors
from nats.aio.client import Client
from nats.js.api import StorageType

PROBE = "agreement"
LOOK_S = 2.0
PAUSE_S = 0.25


async def agreed(client: Client, copies: int, deadline_s: float) -> bool:
    """Returns when a stream can be kept `copies` times: True, or False after the deadline.

    A cluster that has a leader answers before the leader has heard from all others. `client` is in the
    account of the services.
    """
    js = client.jetstream(timeout=LOOK_S)
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(deadline_s):
            while True:
                try:
                    await js.add_stream(
                        name=PROBE, subjects=[PROBE], num_replicas=copies, storage=StorageType.MEMORY
                    )
                    await js.delete_stream(PROBE)
                    return True
                except nats.errors.Error:
                    await asyncio.sleep(PAUSE_S)
    return False
