"""Keeps nats-py listening after a late PONG: a broker that stood still is heard again.

nats-py (2.16) ends its reading loop when the pong of a ping comes whose time was over: the client stays
connected and can send, and hears nothing ever again. A broker that stands still for two seconds is enough.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import cast

from nats.aio.client import Client


def hear_late_pongs(client: Client) -> None:
    """From now on a late pong does the client no harm. Does nothing the second time."""
    if "_process_pong" in vars(client):
        return
    process = cast(Callable[[], Awaitable[None]], client._process_pong)

    async def process_any() -> None:
        if client._pongs and client._pongs[0].done():
            client._pongs[0] = asyncio.get_running_loop().create_future()
        await process()

    setattr(client, "_process_pong", process_any)  # noqa: B010  # a method of nats-py's, for this one client
