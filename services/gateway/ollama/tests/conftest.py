"""The gateway under test, and Ollama's own Python client for it."""

from __future__ import annotations

from collections.abc import AsyncIterator

import httpx
import ollama
import pytest_asyncio

from infra.testing.choir_up import QUARTET
from services.gateway.tests.serving import serving


@pytest_asyncio.fixture
async def gateway(live_mesh: str) -> AsyncIterator[str]:
    """The address of a gateway over instant models."""
    async with serving(live_mesh, sets={"four": QUARTET}) as url:
        yield url


@pytest_asyncio.fixture
async def http(gateway: str) -> AsyncIterator[httpx.AsyncClient]:
    """Any HTTP client."""
    async with httpx.AsyncClient(base_url=gateway, timeout=60) as client:
        yield client


@pytest_asyncio.fixture
async def client(gateway: str) -> AsyncIterator[ollama.AsyncClient]:
    """Ollama's client."""
    async with ollama.AsyncClient(gateway) as client:
        yield client
