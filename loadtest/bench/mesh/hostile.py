"""What five hostile worker servers cost the models that an agent serves by itself.

An agent has a demo model of its own and looks at five servers: a list of 20,000 models, a list and an error
without end, a packed answer, one that drips. Their model is asked for all the while. Asks of the agent's own
model, one after another, are held against the same with no worker registered; both take turns.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import statistics
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import psutil
import uvloop

from infra.host.supervisor import Supervisor
from infra.settings import load_host_settings
from infra.testing.switched_off import switched_off
from loadtest.bench.hostile_servers import MODEL, SERVERS
from loadtest.bench.report import Report, at_most
from schemas.errors import ChoirError
from schemas.nodes.workers import ManageWorkers, Worker
from services.client import Choir

ROUNDS, ROUND_S = 6, 10.0
SETTLE_S = 1.0
MIB = 1024**2
OWN = "choir-llama"
CONFIG = """
[broker]
port = 0
[workers]
check_interval_s = 1.0
open_for_s = 1.0
open_for_longest_s = 1.0
[[agents]]
name = "host"
models = [{ name = "choir-llama", path = "demo:choir-llama", slots = 1 }]
""" + switched_off("aggregator", "summarizer", "metrics", "gateway", "modelstore")


@asynccontextmanager
async def hostile_servers() -> AsyncIterator[dict[str, int]]:
    """Their ports by their names."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "loadtest.bench.hostile_servers",
        stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE,
    )  # fmt: skip
    assert process.stdin is not None and process.stdout is not None
    try:
        yield json.loads(await process.stdout.readline())
    finally:
        process.stdin.close()
        process.terminate()
        await process.wait()


async def _asked_for(choir: Choir) -> None:
    """Somebody wants the hostile servers' model all the while; nobody gets an answer."""
    while True:
        with contextlib.suppress(ChoirError):
            await choir.ask("Say something.", model=MODEL, timeout_s=5.0)
        await asyncio.sleep(0.1)


async def _registered(choir: Choir, ports: dict[str, int]) -> None:
    for name, port in ports.items():
        worker = Worker(id=name, type="lm_studio", host="127.0.0.1", port=port, model=MODEL, slots=2)
        await choir.workers(ManageWorkers(action="add", worker=worker))


async def _removed(choir: Choir) -> None:
    for name in SERVERS:
        await choir.workers(ManageWorkers(action="remove", id=name))


async def _latencies_ms(choir: Choir) -> list[float]:
    taken, until_s = [], time.perf_counter() + ROUND_S
    while time.perf_counter() < until_s:
        began_s = time.perf_counter()
        await choir.ask("What is the capital of France?", model=OWN, timeout_s=60.0, max_tokens=16)
        taken.append((time.perf_counter() - began_s) * 1000)
    return taken


def _agent_bytes(supervisor: Supervisor) -> int:
    (agent,) = (child for child in supervisor.children if child.name == "host")
    return int(psutil.Process(agent.pid).memory_info().rss)


async def measure(folder: Path) -> dict[str, Any]:
    """Latencies of the agent's own model in quiet and beside the servers, and how the agent grew."""
    (folder / "choir.toml").write_text(CONFIG)
    settings = load_host_settings(folder / "choir.toml")
    async with AsyncExitStack() as stack:
        supervisor = Supervisor(settings, state=folder / "state", forward=lambda *_: None)
        await supervisor.start()
        stack.push_async_callback(supervisor.stop)
        choir = await stack.enter_async_context(Choir(supervisor.url))
        ports = await stack.enter_async_context(hostile_servers())
        quiet, beside = [], []
        await _latencies_ms(choir)
        rss = _agent_bytes(supervisor)
        for _ in range(ROUNDS):
            quiet += await _latencies_ms(choir)
            await _registered(choir, ports)
            wanting = asyncio.create_task(_asked_for(choir))
            await asyncio.sleep(SETTLE_S)
            beside += await _latencies_ms(choir)
            wanting.cancel()
            await _removed(choir)
            await asyncio.sleep(SETTLE_S)
        grown = _agent_bytes(supervisor) - rss
    taken = {"quiet": quiet, "beside": beside}
    p50s = {name: statistics.median(values) for name, values in taken.items()}
    p99s = {name: statistics.quantiles(values, n=100)[-1] for name, values in taken.items()}
    return {
        "p50_ms": p50s,
        "p99_ms": p99s,
        "asks": {name: len(values) for name, values in taken.items()},
        "p50_ratio": p50s["beside"] / p50s["quiet"],
        "p99_ratio": p99s["beside"] / p99s["quiet"],
        "agent_grown_mib": grown / MIB,
    }


def run() -> Report:
    """Measures on this machine's disk, in a folder that is gone afterwards."""
    with tempfile.TemporaryDirectory() as folder:
        raw = uvloop.run(measure(Path(folder)))
    return Report(
        bench="hostile",
        raw=raw,
        targets=(
            at_most("p99 beside hostile servers / in quiet", raw["p99_ratio"], 1.2),
            at_most("growth of the agent in MiB", raw["agent_grown_mib"], 64.0),
        ),
        notes=(
            "Each server is looked at every second, ten to sixty times as often as with the settings that "
            "Choir comes with, where one that fails is left alone for longer and longer.",
        ),
    )
