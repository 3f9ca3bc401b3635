"""Tokens each second of one model on all cores: Choir's agent, and llama-cpp-python's own server.

Both run the same version of llama.cpp, the same file and as many threads. The server is as it is shipped: in
an environment of its own, with what its package builds by default, and with nothing set in the environment.
It works on one request at a time; the agent batches all that are there.
"""

from __future__ import annotations

import importlib.metadata
import os
from pathlib import Path
from typing import Any

from infra.broker.local_cluster import free_port
from loadtest.bench.processes import bench_mesh
from loadtest.peers.clients import Call, Load, differing, http_calls, load
from loadtest.peers.environments import environment
from loadtest.peers.servers import server
from services.client.client import Choir

CONCURRENCIES = (1, 4, 8, 16)
PROMPT = "Tell me of the rivers, the mountains and the towns of Kenya."
MODEL = "model"
CONTEXT_TOKENS = 512


async def by_choir(path: Path, folder: Path, max_tokens: int, per_stream: int) -> list[Load]:
    """One agent with sixteen slots, asked over the mesh."""
    async with bench_mesh(folder, [MODEL]) as mesh:
        mesh.spawn("services.router")
        mesh.spawn("services.aggregator")
        model = {
            "name": MODEL,
            "path": str(path),
            "slots": max(CONCURRENCIES),
            "context_tokens": CONTEXT_TOKENS,
        }
        mesh.spawn_llama_agent(model, threads=os.cpu_count() or 1)
        await mesh.wait_ready([MODEL])
        prompt = differing(PROMPT)
        async with Choir(mesh.url) as client:

            async def call(number: int) -> int:
                options = {"model": MODEL, "max_tokens": max_tokens, "timeout_s": 300.0}
                result = await client.ask(prompt(number), **options)  # type: ignore[arg-type]
                return result.answers[0].generated_tokens

            return await _loads(call, per_stream)


async def by_llama_server(path: Path, max_tokens: int, per_stream: int) -> list[Load]:
    """`python -m llama_cpp.server` with as many threads."""
    port = free_port()
    threads = str(os.cpu_count() or 1)
    folder = environment("llama-cpp-python-server", [f"llama-cpp-python[server]=={llama_version()}"])
    python = str(folder / "bin" / "python")
    command = (python, "-m", "llama_cpp.server", "--model", str(path), "--port", str(port))
    options = ("--n_ctx", str(CONTEXT_TOKENS), "--n_threads", threads, "--n_threads_batch", threads)
    url = f"http://127.0.0.1:{port}"
    prompt = differing(PROMPT)

    def body(number: int) -> dict[str, Any]:
        messages = [{"role": "user", "content": prompt(number)}]
        return {"model": MODEL, "messages": messages, "max_tokens": max_tokens, "temperature": 0.0}

    async with (
        server((*command, *options), url, "/v1/models"),
        http_calls(f"{url}/v1/chat/completions", body) as call,
    ):
        return await _loads(call, per_stream)


async def _loads(call: Call, per_stream: int) -> list[Load]:
    await call(0)
    return [await load(call, streams, streams * per_stream) for streams in CONCURRENCIES]


def llama_version() -> str:
    """Of the server, and of the library under both."""
    return importlib.metadata.version("llama-cpp-python")
