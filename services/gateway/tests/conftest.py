"""The gateway that most of its tests ask: over a mesh of instant models."""

from __future__ import annotations

from collections.abc import AsyncIterator

import httpx
import pytest_asyncio

from infra.testing.choir_up import QUARTET
from services.gateway.tests.serving import serving


@pytest_asyncio.fixture
async def gateway(live_mesh: str) -> AsyncIterator[str]:
    """The address of a gateway."""
    async with serving(live_mesh, sets={"four": QUARTET}) as url:
        yield url


@pytest_asyncio.fixture
async def http(gateway: str) -> AsyncIterator[httpx.AsyncClient]:
    """A client of that gateway."""
    async with httpx.AsyncClient(base_url=gateway, timeout=60) as client:
        yield client
