"""Four answers to one question, and their majority: Choir's ensemble, and Ray Serve's model composition."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from infra.broker.local_cluster import free_port
from loadtest.bench.processes import bench_mesh
from loadtest.peers.clients import Latency, Load, differing, http_calls
from loadtest.peers.environments import environment, version_in
from loadtest.peers.hops import PROMPT, measured
from loadtest.peers.servers import server
from services.client.client import Choir

RAY = ("ray[serve]>=2.44,<3",)
ANSWERS = ("Paris", "Paris", "Lyon", "Paris")
MODELS = tuple(f"replica-{number}" for number in range(len(ANSWERS)))
SCRIPT = Path(__file__).with_name("ray_composition.py")


async def by_choir(folder: Path) -> tuple[Latency, Load]:
    """An ensemble of four `instant` models, decided by majority; every answer is stored."""
    async with bench_mesh(folder, MODELS) as mesh:
        mesh.spawn("services.router")
        mesh.spawn("services.aggregator")
        for model, answer in zip(MODELS, ANSWERS, strict=True):
            mesh.spawn_agent(model, reply=answer, slots=16)
        await mesh.wait_ready(MODELS)
        prompt = differing(PROMPT)
        async with Choir(mesh.url) as client:

            async def call(number: int) -> int:
                result = await client.ask(prompt(number), models=MODELS, strategies=["majority"])
                assert result.text == "Paris"
                return 0

            return await measured(call)


async def by_ray() -> tuple[Latency, Load]:
    """Four deployments of one replica each behind one that asks them; answers live in memory only."""
    python = environment("ray", RAY) / "bin" / "python"
    port = free_port()

    def body(number: int) -> dict[str, Any]:
        return {"prompt": f"{number}: {PROMPT}"}

    url = f"http://127.0.0.1:{port}"
    env = {"RAY_USAGE_STATS_ENABLED": "0"}
    async with server((str(python), str(SCRIPT), str(port)), url, "/", env), http_calls(url, body) as call:
        return await measured(call)


def ray_version() -> str:
    """Of the Ray that is measured."""
    return version_in(environment("ray", RAY), "ray")
