"""What five hostile worker servers cost the models that an agent serves by itself.

An agent has a demo model of its own and looks at five servers: a list of 20,000 models, a list and an error
without end, a packed answer, one that drips. Their model is asked for all the while. Asks of the agent's own
model, one after another, are held against the same with no worker registered.

Both take turns of a few seconds, and which of a pair comes first changes from pair to pair. Of each pair the
p99s are compared, and the median of all pairs is the figure: a second in which somebody else had the machine
is one pair's, not the p99 of a whole run. The interval is that of pairs drawn again (bootstrap): where it is
wide, the machine was not quiet.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import uvloop

from infra.host.supervisor import Supervisor
from infra.settings import load_host_settings
from infra.testing.switched_off import switched_off
from loadtest.bench.abuse.hostile_servers import MODEL
from loadtest.bench.report import Report, at_most
from schemas.errors import ChoirError
from schemas.nodes.workers import ManageWorkers, Worker
from services.client import Choir

PAIRS, TURN_S = 20, 5.0
SETTLE_S = 1.0
RESAMPLES, LOW, HIGH = 2_000, 2.5, 97.5
SEED = 1
MAX_TOKENS = 8
HARMLESS = "dripping"
"""With this server alone an agent has its client of such servers, and nothing else: how much memory that is
says nothing of what the servers do to it."""
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
        sys.executable, "-m", "loadtest.bench.abuse.hostile_servers",
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


async def _latencies_ms(choir: Choir) -> list[float]:
    taken, until_s = [], time.perf_counter() + TURN_S
    while time.perf_counter() < until_s:
        began_s = time.perf_counter()
        await choir.ask("What is the capital of France?", model=OWN, timeout_s=60.0, max_tokens=MAX_TOKENS)
        taken.append((time.perf_counter() - began_s) * 1000)
    return taken


def _agent(supervisor: Supervisor) -> psutil.Process:
    (agent,) = (child for child in supervisor.children if child.name == "host")
    return psutil.Process(agent.pid)


def _agent_bytes(supervisor: Supervisor) -> int:
    """Those that nobody shares with it: it is forked from a process that has imported the same."""
    return int(_agent(supervisor).memory_full_info().uss)


def _agent_cpu_s(supervisor: Supervisor) -> float:
    times = _agent(supervisor).cpu_times()
    return float(times.user + times.system)


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
        turns: dict[str, list[list[float]]] = {"quiet": [], "beside": []}
        await _latencies_ms(choir)
        before_client = _agent_bytes(supervisor)
        async with _hostile(choir, {HARMLESS: ports[HARMLESS]}):
            await _latencies_ms(choir)
        sizes, cpu_s = [_agent_bytes(supervisor)], {"quiet": 0.0, "beside": 0.0}
        for pair in range(PAIRS):
            for name in ("quiet", "beside") if pair % 2 else ("beside", "quiet"):
                async with _hostile(choir, ports) if name == "beside" else _left_alone():
                    before_s = _agent_cpu_s(supervisor)
                    turns[name].append(await _latencies_ms(choir))
                    cpu_s[name] += _agent_cpu_s(supervisor) - before_s
            sizes.append(_agent_bytes(supervisor))
    return figures(turns) | {
        "agent_cpu_ms_per_s": {name: 1000 * used / PAIRS / TURN_S for name, used in cpu_s.items()},
        "client_library_mib": (sizes[0] - before_client) / MIB,
        "agent_mib": [round(size / MIB, 1) for size in sizes],
        "agent_grown_mib": (max(sizes) - sizes[0]) / MIB,
    }


def figures(turns: dict[str, list[list[float]]]) -> dict[str, Any]:
    """Percentiles of all asks (milliseconds), and how many times longer those beside the servers took: the
    median of the pairs of turns, with a 95 % interval."""
    pooled = {name: np.concatenate(each) for name, each in turns.items()}
    found: dict[str, Any] = {"asks": {name: len(values) for name, values in pooled.items()}}
    for share in (50, 99):
        found[f"p{share}_ms"] = {name: float(np.percentile(all_, share)) for name, all_ in pooled.items()}
        quiet, beside = ([np.percentile(one, share) for one in turns[name]] for name in ("quiet", "beside"))
        ratios = np.array(beside) / np.array(quiet)
        drawn = np.random.default_rng(SEED).choice(ratios, (RESAMPLES, len(ratios)))
        low, high = np.percentile(np.median(drawn, axis=1), [LOW, HIGH])
        found[f"p{share}_ratio"] = float(np.median(ratios))
        found[f"p{share}_ratio_interval"] = {"low": float(low), "high": float(high)}
    return found


@asynccontextmanager
async def _hostile(choir: Choir, ports: dict[str, int]) -> AsyncIterator[None]:
    """The servers are registered, and their model is asked for."""
    await _registered(choir, ports)
    wanting = asyncio.create_task(_asked_for(choir))
    await asyncio.sleep(SETTLE_S)
    try:
        yield
    finally:
        wanting.cancel()
        for name in ports:
            await choir.workers(ManageWorkers(action="remove", id=name))


@asynccontextmanager
async def _left_alone() -> AsyncIterator[None]:
    """Nobody is registered, and what was before is over."""
    await asyncio.sleep(SETTLE_S)
    yield


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
            f"{PAIRS} pairs of turns of {TURN_S:g} s, in changing order; ratios are medians over the pairs.",
        ),
    )
