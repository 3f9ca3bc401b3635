"""The official client, before a gateway over a mesh of instant models."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest_asyncio
from openai import AsyncOpenAI

from infra.testing.choir_up import QUARTET
from services.gateway.tests.serving import serving


@pytest_asyncio.fixture
async def gateway(live_mesh: str) -> AsyncIterator[str]:
    """The address of a gateway."""
    async with serving(live_mesh, sets={"quartet": QUARTET}) as url:
        yield url


@pytest_asyncio.fixture
async def client(gateway: str) -> AsyncIterator[AsyncOpenAI]:
    """A client that tries nothing twice."""
    async with AsyncOpenAI(base_url=f"{gateway}/v1", api_key="none", max_retries=0, timeout=60) as client:
        yield client
