"""What a pull costs those who ask meanwhile: asks beside a pull of 380 MB and in quiet, in turns.

An instant model and a pipeline of two stages are asked one request after another. All shares the machine:
broker, both stores, router, agent, stages and client.
"""

from __future__ import annotations

import asyncio
import statistics
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from infra.demo_models.family import FOLDER
from loadtest.bench.inference.pipeline_nodes import MODEL, Nodes
from loadtest.bench.processes import BenchMesh, bench_mesh
from schemas.errors import ChoirError
from services.client.client import Choir

INSTANT = "instant"
ROUNDS = 5
WARM_UP = 20
TOKENS = 8
TIMEOUT_S = 120.0
READY_DEADLINE_S = 180.0
LOOK_S = 0.1
SIZE = {"slots": 2, "context_tokens": 256}
MS_PER_S = 1000

Pull = Callable[[], Awaitable[float]]
"""One pull; the seconds that it takes."""
Prepared = Callable[[BenchMesh, Choir, Path], Awaitable[Pull]]


async def asks_beside(folder: Path, prepared: Prepared) -> dict[str, Any]:
    """Latencies in ms, quiet and beside pulls, and the ratios. `prepared` starts stores, and gives a pull."""
    async with bench_mesh(folder / "broker", (INSTANT, MODEL)) as mesh, Choir(mesh.url) as choir:
        await _start(mesh, folder)
        pull = await prepared(mesh, choir, folder)
        alone_s = await pull()
        taken: dict[str, list[float]] = {}
        pulls_s: list[float] = []
        for model in (INSTANT, MODEL):
            for _ in range(WARM_UP):
                await _asked_ms(choir, model)
        for _ in range(ROUNDS):
            for model in (INSTANT, MODEL):
                quiet = asyncio.create_task(asyncio.sleep(alone_s))
                taken.setdefault(f"{model} quiet", []).extend(await _until(choir, model, quiet))
                pulling = asyncio.ensure_future(pull())
                taken.setdefault(f"{model} beside", []).extend(await _until(choir, model, pulling))
                pulls_s.append(pulling.result())
    p50s = {name: statistics.median(values) for name, values in taken.items()}
    p95s = {name: statistics.quantiles(values, n=20)[-1] for name, values in taken.items()}
    return {
        "ask p50 ms": p50s,
        "ask p95 ms": p95s,
        "asks": {name: len(values) for name, values in taken.items()},
        "p50 beside / quiet": {model: _ratio(p50s, model) for model in (INSTANT, MODEL)},
        "p95 beside / quiet": {model: _ratio(p95s, model) for model in (INSTANT, MODEL)},
        "seconds of a pull": {"alone": alone_s, "beside asks": statistics.median(pulls_s)},
    }


def _ratio(found: dict[str, float], model: str) -> float:
    return found[f"{model} beside"] / found[f"{model} quiet"]


async def _start(mesh: BenchMesh, folder: Path) -> None:
    mesh.spawn("services.router", env={"CHOIR_INSTANCE": "router-1"})
    mesh.spawn_agent(INSTANT)
    pair = Nodes(mesh, FOLDER / "choir-llama.gguf", folder / "slices", SIZE)
    for name, core in (("node-0", 0), ("node-1", 1)):
        pair.start(name, core)
    await pair.place("node-0", "node-1")
    async with Choir(mesh.url) as choir, asyncio.timeout(READY_DEADLINE_S):
        while not {INSTANT, MODEL} <= {model.name for model in await choir.models()}:  # noqa: ASYNC110
            await asyncio.sleep(LOOK_S)


async def _asked_ms(choir: Choir, model: str) -> float:
    began_s = time.perf_counter()
    result = await choir.ask("Which way?", model=model, max_tokens=TOKENS, timeout_s=TIMEOUT_S)
    if result.error is not None:
        raise ChoirError(result.error.message)
    return (time.perf_counter() - began_s) * MS_PER_S


async def _until(choir: Choir, model: str, task: asyncio.Future[Any]) -> list[float]:
    """Latencies of one request after another until the task is done, of at least two."""
    taken: list[float] = []
    while not task.done() or len(taken) < 2:
        taken.append(await _asked_ms(choir, model))
    return taken
