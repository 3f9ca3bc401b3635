"""The head of a reply goes with its body in one piece; where no body comes it is not held back."""

from __future__ import annotations

from collections.abc import AsyncIterator

import httpx
import pytest
import pytest_asyncio

from services.gateway.tests.raw import exchange
from services.gateway.tests.serving import serving

ASKED = b" / HTTP/1.1\r\nhost: localhost\r\n"


@pytest_asyncio.fixture
async def gateway(live_mesh: str) -> AsyncIterator[httpx.URL]:
    """A gateway as it is usually set."""
    async with serving(live_mesh) as url:
        yield httpx.URL(url)


@pytest.mark.parametrize("more", [b"", b"connection: close\r\n"], ids=["kept", "closed"])
async def test_a_client_is_woken_once_for_head_and_body(gateway: httpx.URL, more: bytes) -> None:
    first_part = await exchange(gateway, b"GET" + ASKED + more + b"\r\n")
    assert first_part.startswith(b"HTTP/1.1 200 ") and first_part.endswith(b"\r\n\r\nOllama is running")


async def test_a_head_without_a_body_is_sent_at_once(gateway: httpx.URL) -> None:
    head = await exchange(gateway, b"HEAD" + ASKED + b"\r\n")
    assert head.startswith(b"HTTP/1.1 200 ") and head.endswith(b"\r\n\r\n")


async def test_a_reply_of_an_empty_body_is_sent_at_once(gateway: httpx.URL) -> None:
    asked = b"OPTIONS / HTTP/1.1\r\nhost: localhost\r\norigin: http://localhost\r\n\r\n"
    assert (await exchange(gateway, asked)).startswith(b"HTTP/1.1 204 ")
