"""Measures the round trip to an agent, by the services API's ping (ADR-32)."""

from __future__ import annotations

import asyncio
import contextlib
import json
import time

from nats.aio.client import Client

from schemas import subjects

PATIENCE_S = 2.0
"""For an agent that lives: on a busy host its answer, or our reading of it, may wait for a moment."""


async def ping_agent(client: Client, instance: str) -> int | None:
    """The round trip to one agent in nanoseconds, by our own clock; None if it has not answered in time.

    All agents hear the ping and answer it at once; the answer of this one counts.
    """
    inbox = client.new_inbox()
    replies = await client.subscribe(inbox)
    started_ns = time.perf_counter_ns()
    try:
        await client.publish(subjects.AGENT_PING, reply=inbox)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(PATIENCE_S):
                async for reply in replies.messages:
                    duration_ns = time.perf_counter_ns() - started_ns
                    if _instance(reply.data) == instance:
                        return duration_ns
    finally:
        await replies.unsubscribe()
    return None


def _instance(data: bytes) -> str | None:
    """Who has answered; None if the answer is none of the services API."""
    try:
        said = json.loads(data)
        return str(said["metadata"]["instance"])
    except (ValueError, LookupError, TypeError):
        return None
