"""The fixture that nearly every test of the router begins with."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest_asyncio
from nats.aio.client import Client

from services.router.tests.front import Front, open_front


@pytest_asyncio.fixture
async def front(connection: Client, mesh_url: str) -> AsyncIterator[Front]:
    """A router that looks for expired work all the time, and a client."""
    async with open_front(connection, mesh_url, sweep_interval_s=0.05) as opened:
        yield opened
