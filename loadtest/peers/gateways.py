"""Gateways at 64 clients: which share of an instant server's rate is left behind each.

Both are asked the same chat completion over HTTP by the same clients, which take less time than what they
measure: those of a library get no more than some hundred answers a second. LiteLLM's proxy passes a request
on to the instant server; Choir's gateway asks its mesh, which stores it and the answer of an instant model.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from urllib.parse import urlsplit

from infra.broker.local_cluster import free_port
from loadtest.bench.http.gateway import http_callers
from loadtest.bench.http.http_client import require, until_listening
from loadtest.bench.mesh.overhead import rate_per_s
from loadtest.bench.processes import bench_mesh
from loadtest.peers.hops import chat_body, litellm_proxy
from loadtest.peers.instant_server import MODEL

CLIENTS, REQUESTS, WARM_UP = 64, 2_000, 200


async def rate(url: str) -> float:
    """Requests per second of 64 clients with a connection each."""
    body = json.dumps(chat_body(0)).encode()
    async with http_callers(urlsplit(url).port or 0, CLIENTS, body) as calls:
        await rate_per_s(calls, WARM_UP)
        found, failed = await rate_per_s(calls, REQUESTS)
    require(not failed, f"{failed} requests were not answered")
    return found


async def of_litellm(backend: str) -> float:
    """The proxy with one worker."""
    async with litellm_proxy(backend) as url:
        return await rate(url)


async def of_choir(folder: Path) -> float:
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
