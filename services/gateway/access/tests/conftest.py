"""A gateway that wants keys, over a mesh of instant models, and keys for it."""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import httpx
import pytest
import pytest_asyncio

from schemas.errors import ChoirError
from schemas.requests.keys import ApiKey, ManageKeys, digest_of, new_secret
from services.client.client import Choir
from services.gateway.access.fresh_login import login_of
from services.gateway.tests.serving import serving

HEARD_WITHIN_S = 180.0
numbers = itertools.count(1)

MakeKey = Callable[..., Awaitable[str]]


@pytest_asyncio.fixture
async def locked(live_mesh: str) -> AsyncIterator[httpx.AsyncClient]:
    """A client of a gateway that wants keys, without one."""
    async with (
        serving(live_mesh, keys_required=True) as url,
        httpx.AsyncClient(base_url=url, timeout=60) as http,
    ):
        yield http


@pytest.fixture
def make_key(live_mesh: str, locked: httpx.AsyncClient) -> MakeKey:
    """Makes a key with the fields that are given; its secret, when the gateway knows it."""

    async def make(**fields: Any) -> str:
        key_id = f"k-test-{next(numbers)}-{time.time_ns() % 1_000_000}"
        secret = new_secret(key_id)
        key = ApiKey(
            id=key_id, digest=digest_of(secret), ending=secret[-4:], created_at_s=time.time(), **fields
        )
        async with Choir(live_mesh) as mesh:
            await mesh.keys(ManageKeys(action="add", key=key))
        await until_status(locked, secret, lambda status: status not in (401, 429))
        return secret

    return make


async def until_status(http: httpx.AsyncClient, secret: str, wanted: Callable[[int], bool]) -> None:
    """Returns when the gateway answers this key as is wanted. It asks from another address: what it shows in
    vain is not counted with the failures of the test."""
    elsewhere = httpx.AsyncHTTPTransport(local_address="127.0.0.2")
    async with (
        asyncio.timeout(HEARD_WITHIN_S),
        httpx.AsyncClient(base_url=http.base_url, transport=elsewhere, timeout=60) as asking,
    ):
        while True:
            reply = await asking.get("/v1/models", headers=bearer(secret))
            if wanted(reply.status_code):
                return
            await asyncio.sleep(0.02)


def bearer(secret: str) -> dict[str, str]:
    """The header in which most clients send a key."""
    return {"authorization": f"Bearer {secret}"}


def logged_in(secret: str, at_s: float | None = None) -> dict[str, str]:
    """What a browser sends that has shown a key, now or at that Unix time."""
    return {
        "cookie": f"choir_key={secret}; choir_login={login_of(secret, time.time() if at_s is None else at_s)}"
    }


async def refused_with(code: str, asked: Awaitable[object]) -> None:
    """Asks, and asserts with which code that is refused."""
    with pytest.raises(ChoirError) as refusal:
        await asked
    assert refusal.value.code == code
