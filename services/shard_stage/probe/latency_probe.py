"""Measures how long a frame takes from one service of the mesh to another."""

from __future__ import annotations

import asyncio
import statistics
import time

from nats.aio.client import Client
from nats.aio.msg import Msg

from schemas import subjects

NO_PIPELINE = 0
"""Pipelines are numbered from 1: what is published under this number concerns no stage."""
PROBE_BYTES = 16 * 1024
PROBES = 12
PROBE_DEADLINE_S = 2.0


async def measured_hop_ms(client: Client, payload_bytes: int = PROBE_BYTES) -> float:
    """The median milliseconds from a publish to its arrival, through the broker and back to this process.

    Raises TimeoutError where the broker does not pass it on.
    """
    subject = subjects.stage_signal(NO_PIPELINE)
    mark, arrived = client.new_inbox().encode(), asyncio.Event()

    async def on_probe(msg: Msg) -> None:
        if msg.data.startswith(mark):
            arrived.set()

    subscription = await client.subscribe(subject, cb=on_probe)
    payload = mark.ljust(payload_bytes, b"\0")
    timings_s = []
    try:
        for _ in range(PROBES):
            arrived.clear()
            started_s = time.perf_counter()
            await client.publish(subject, payload)
            async with asyncio.timeout(PROBE_DEADLINE_S):
                await arrived.wait()
            timings_s.append(time.perf_counter() - started_s)
    finally:
        await subscription.unsubscribe()
    return statistics.median(timings_s) * 1000
