"""Makes a connection anew whose reading has ended by a fault.

nats-py (2.16) ends its reading loop at any error that it has not foreseen: the client stays connected and can
send, its lease lives on, and it hears nothing ever again.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import cast

from nats.aio.client import Client

from services.chassis.logs import get_logger

log = get_logger("chassis.connection")


def reconnect_when_deaf(client: Client) -> None:
    """From now on a connected client reads. Does nothing the second time."""
    if "_read_loop" in vars(client):
        return
    read = cast(Callable[[], Awaitable[None]], client._read_loop)
    reconnecting: set[asyncio.Task[None]] = set()

    def ended(task: asyncio.Task[None]) -> None:
        if client._reading_task is task and client.is_connected:
            log.error("the read loop of the broker's client has failed: connecting anew")
            again = asyncio.create_task(client.force_reconnect(), name="deaf")
            reconnecting.add(again)
            again.add_done_callback(reconnecting.discard)

    async def read_and_tell() -> None:
        cast("asyncio.Task[None]", asyncio.current_task()).add_done_callback(ended)
        await read()

    setattr(client, "_read_loop", read_and_tell)  # noqa: B010  # a method of nats-py's, for this one client
    if client._reading_task is not None:
        client._reading_task.add_done_callback(ended)
