"""What a gateway-like hop costs: a client, something in between, and a backend that answers at once.

LiteLLM's proxy passes an OpenAI request on over HTTP; Choir's mesh takes a request over NATS, stores it, and
an agent passes it on to the same backend over HTTP. Latency is given beside the direct way to the backend.
"""

from __future__ import annotations

import json
import sys
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from infra.broker.local_cluster import free_port
from loadtest.bench.processes import bench_mesh
from loadtest.peers.clients import Call, Latency, Load, differing, http_calls, latency, load
from loadtest.peers.environments import environment, version_in
from loadtest.peers.instant_server import MODEL
from loadtest.peers.servers import server
from services.client.client import Choir

LITELLM = ("litellm[proxy]>=1.70,<2",)
REQUESTS, LOADED = 300, 1_000
CONCURRENCY = 16
PROMPT = "What is the capital of France?"
CHAT = "/v1/chat/completions"
KEY = "sk-loopback"
NO_KEY = "LITELLM_DANGEROUSLY_PERMIT_WEAK_OR_UNSET_MASTER_KEY"
"""It listens on loopback only, and checking a key would be work that the mesh is not asked to do here."""


@asynccontextmanager
async def instant_backend() -> AsyncIterator[str]:
    """The backend behind every hop."""
    port = free_port()
    command = (sys.executable, "-m", "loadtest.peers.instant_server", str(port))
    async with server(command, f"http://127.0.0.1:{port}", "/v1/models") as url:
        yield url


def chat_body(number: int) -> dict[str, Any]:
    """An OpenAI request."""
    return {"model": MODEL, "messages": [{"role": "user", "content": f"{number}: {PROMPT}"}]}


async def measured(call: Call) -> tuple[Latency, Load]:
    """Latency of one after another, and the rate of sixteen at once."""
    return await latency(call, REQUESTS), await load(call, CONCURRENCY, LOADED)


async def direct(backend: str) -> tuple[Latency, Load]:
    """Without anything in between."""
    async with http_calls(backend + CHAT, chat_body) as call:
        return await measured(call)


async def through_litellm(backend: str) -> tuple[Latency, Load]:
    """The LiteLLM proxy before the backend."""
    async with litellm_proxy(backend) as url, http_calls(url + CHAT, chat_body) as call:
        return await measured(call)


@asynccontextmanager
async def litellm_proxy(backend: str) -> AsyncIterator[str]:
    """The LiteLLM proxy, one worker, as its documentation starts it; its address."""
    folder = environment("litellm", LITELLM)
    port = free_port()
    params = {"model": f"openai/{MODEL}", "api_base": f"{backend}/v1", "api_key": KEY}
    with tempfile.TemporaryDirectory() as scratch:
        config = Path(scratch) / "config.yaml"  # JSON is YAML
        config.write_text(json.dumps({"model_list": [{"model_name": MODEL, "litellm_params": params}]}))
        command = (str(folder / "bin" / "litellm"), "--config", str(config))
        options = ("--host", "127.0.0.1", "--port", str(port), "--telemetry", "False")
        env = {"LITELLM_LOCAL_MODEL_COST_MAP": "True", NO_KEY: "true"}
        url = f"http://127.0.0.1:{port}"
        async with server((*command, *options), url, "/health/liveliness", env):
            yield url


def litellm_version() -> str:
    """Of the proxy that is measured."""
    return version_in(environment("litellm", LITELLM), "litellm")


async def through_choir(backend: str, folder: Path) -> tuple[Latency, Load]:
    """A mesh whose agent passes tasks on to the backend; durable streams, synced, as always."""
    model = {"name": MODEL, "slots": CONCURRENCY, "server": {"type": "openai", "url": backend}}
    async with bench_mesh(folder, [MODEL]) as mesh:
        mesh.spawn("services.router")
        mesh.spawn("services.aggregator")
        agent = {"name": "hop", "backend": "openai", "models": [model]}
        mesh.spawn("services.agent", env={"CHOIR_AGENT": json.dumps(agent)})
        await mesh.wait_ready([MODEL])
        prompt = differing(PROMPT)
        async with Choir(mesh.url) as client:

            async def call(number: int) -> int:
                result = await client.ask(prompt(number), model=MODEL)
                return result.answers[0].generated_tokens

            return await measured(call)
