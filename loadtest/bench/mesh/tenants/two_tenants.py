"""A mesh for two tenants, and floods of requests of the first one. One agent answers at once, another one not
within the hour."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import nats
from nats.aio.client import Client

from infra.broker.access.keys import KeyRing
from infra.host.supervisor import Supervisor
from infra.settings import load_host_settings
from infra.testing.switched_off import switched_off
from loadtest.bench.flood import Order

OTHER = "other"
FAST, SLOW = "alpha", "slow"
CONFIG = """
[broker]
port = 0
[[agents]]
name = "{fast}"
backend = "instant"
models = [{{ name = "{fast}" }}]
[[agents]]
name = "{slow}"
backend = "instant"
models = [{{ name = "{slow}", delay_ms = 3600000 }}]
[[tenants]]
name = "local"
{local}
[[tenants]]
name = "{other}"
public_keys = ["{key}"]
{others}
"""


@dataclass(frozen=True)
class TwoTenants:
    """A mesh that runs, and a connection of each of its tenants."""

    supervisor: Supervisor
    local: Client
    other: Client


@asynccontextmanager
async def two_tenants(
    folder: Path, *, without: tuple[str, ...], local: str = "", other: str = ""
) -> AsyncIterator[TwoTenants]:
    """A mesh in `folder` as `choir up` starts it, without some of its services.

    `local` is the tenant of clients without credentials, the other one comes with a key; `local` and `other`
    are further lines of their sections in choir.toml.
    """
    keys = KeyRing(folder / "keys")
    key = keys.public_key(OTHER)
    text = CONFIG.format(fast=FAST, slow=SLOW, local=local, other=OTHER, key=key, others=other)
    (folder / "choir.toml").write_text(text + switched_off(*without))
    settings = load_host_settings(folder / "choir.toml")
    async with AsyncExitStack() as stack:
        supervisor = Supervisor(settings, state=folder / "state", forward=lambda *_: None)
        await supervisor.start()
        stack.push_async_callback(supervisor.stop)
        by_address = await nats.connect(supervisor.url)
        stack.push_async_callback(by_address.close)
        by_key = await nats.connect(supervisor.url, nkeys_seed=str(keys.path(OTHER)))
        stack.push_async_callback(by_key.close)
        yield TwoTenants(supervisor, by_address, by_key)


@asynccontextmanager
async def flooding(url: str, order: Order) -> AsyncIterator[asyncio.Task[bytes]]:
    """A flood that has just begun, of a client without credentials; its outcome (JSON) is there when it
    ends."""
    address = urlsplit(url)
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "loadtest.bench.flood", address.hostname or "", str(address.port),
        stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE,
    )  # fmt: skip
    assert process.stdin is not None and process.stdout is not None
    process.stdin.write(order.model_dump_json().encode())
    process.stdin.close()
    await process.stdout.readline()
    try:
        yield asyncio.create_task(process.stdout.readline())
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()
