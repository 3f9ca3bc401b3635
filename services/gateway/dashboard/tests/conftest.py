"""A gateway without keys over a mesh of instant models, with runs of its own on disk."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest_asyncio

from services.gateway.access.tests.conftest import locked, make_key
from services.gateway.tests.serving import serving

__all__ = ["locked", "make_key"]


@pytest_asyncio.fixture
async def http(live_mesh: str, tmp_path: Path) -> AsyncIterator[httpx.AsyncClient]:
    """A client of a gateway."""
    async with (
        serving(live_mesh, results=tmp_path / "results") as url,
        httpx.AsyncClient(base_url=url, timeout=60) as client,
    ):
        yield client
