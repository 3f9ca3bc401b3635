"""Gateways at 64 clients: which share of an instant server's rate is left behind each.

Both are asked the same chat completion by the same clients over HTTP. LiteLLM's proxy passes it on to the
instant server; Choir's gateway asks its mesh, which stores it and the answer of an instant model.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from loadtest.bench.http.http_client import until_listening
from loadtest.bench.processes import bench_mesh
from loadtest.peers.clients import Load, http_calls, load
from loadtest.peers.hops import CHAT, chat_body, litellm_proxy
from loadtest.peers.instant_server import MODEL
from loadtest.peers.servers import free_port

CLIENTS, REQUESTS, WARM_UP = 64, 2_000, 200


async def rate(url: str) -> Load:
    """Of 64 clients with a connection each."""
    async with http_calls(url + CHAT, chat_body) as call:
        await load(call, CLIENTS, WARM_UP)
        return await load(call, CLIENTS, REQUESTS)


async def of_litellm(backend: str) -> Load:
    """The proxy with one worker."""
    async with litellm_proxy(backend) as url:
        return await rate(url)


async def of_choir(folder: Path) -> Load:
    """One gateway, one router, one agent."""
    async with choir_gateway(folder) as url:
        return await rate(url)


@asynccontextmanager
async def choir_gateway(folder: Path) -> AsyncIterator[str]:
    """A mesh of one instant model with a gateway; its address."""
    port = free_port()
    async with bench_mesh(folder, (MODEL,)) as mesh:
        for service in ("router", "aggregator"):
            mesh.spawn(f"services.{service}")
        mesh.spawn_agent(MODEL, slots=CLIENTS)
        await mesh.wait_ready((MODEL,))
        mesh.spawn("services.gateway", env={"CHOIR_GATEWAY__PORT": str(port)})
        await until_listening(port)
        yield f"http://127.0.0.1:{port}"
