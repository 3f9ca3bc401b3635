"""Measures whether the mesh keeps workers busy: 1 to 35 workers, a batch on five, and asks beside a batch.

A worker is an `instant` agent of three slots whose every answer takes 200 ms, so whatever is missing of the
ideal is the mesh's own. All asks go the whole way: router, queue, agent, result, reply.
"""

from __future__ import annotations

import asyncio
import json
import statistics
import tempfile
import time
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import nats
import uvloop
from nats.aio.client import Client

from loadtest.bench.processes import BenchMesh, bench_mesh
from loadtest.bench.report import Report, at_least, at_most
from schemas import subjects
from schemas.replies import Result
from services.client.client import Choir

MODEL = "alpha"
WORKERS = (1, 3, 5, 10, 35)
SLOTS, DELAY_S = 3, 0.2
WORKERS_PER_PROCESS = 12
QUEUED_PER_SLOT = 2
"""How many clients ask for each slot: one is served, one waits."""
WARM_UP_S, MEASURE_S = 2.0, 8.0
BATCH_WORKERS, BATCH_TASKS, BATCHES = 5, 500, 5
LONG_BATCH_TASKS = 5_000
IDLE_ASKS, BESIDE_ASKS = 40, 60
READY_DEADLINE_S, TIMEOUT_S = 60.0, 600.0

Figures = dict[str, Any]


def payload(priority: str) -> bytes:
    """One ask."""
    return json.dumps(
        {"prompt": "Say ok.", "model": MODEL, "priority": priority, "timeout_s": TIMEOUT_S}
    ).encode()


async def ask(connection: Client, priority: str) -> Result:
    """The result of one ask; it must have a text."""
    reply = await connection.request(subjects.ASK, payload(priority), timeout=TIMEOUT_S)
    result = Result.model_validate_json(reply.data)
    if result.text is None:
        raise RuntimeError(f"an ask failed: {result.error}")
    return result


async def start(mesh: BenchMesh, workers: int) -> None:
    """A router, an aggregator and so many workers; returns when all slots are there."""
    mesh.spawn("services.router")
    mesh.spawn("services.aggregator")
    left, number = workers, 0
    while left:
        share = min(left, WORKERS_PER_PROCESS)
        options = (MODEL, str(share), str(SLOTS), str(DELAY_S * 1000), f"w{number}")
        mesh.spawn("loadtest.bench.instant_workers", mesh.url, *options)
        left, number = left - share, number + 1
    await mesh.wait_ready((MODEL,))
    async with asyncio.timeout(READY_DEADLINE_S), Choir(mesh.url) as client:
        while (await client.models())[0].slots < workers * SLOTS:  # noqa: ASYNC110  (the router is asked)
            await asyncio.sleep(0.1)


async def throughput(connection: Client, workers: int) -> float:
    """Answers per second while there is always more to do: the slope of their number over time, since slots
    that began together end together, and a count would depend on where the window cuts these bursts."""
    answered_s: list[float] = []
    ended = False

    async def client() -> None:
        while not ended:
            await ask(connection, "batch")
            answered_s.append(time.perf_counter())

    clients = [asyncio.create_task(client()) for _ in range(workers * SLOTS * QUEUED_PER_SLOT)]
    await asyncio.sleep(WARM_UP_S)
    before = len(answered_s)
    await asyncio.sleep(MEASURE_S)
    measured_s = answered_s[before:]
    ended = True
    await asyncio.gather(*clients)
    return statistics.linear_regression(measured_s, range(len(measured_s))).slope


async def batch(connection: Client) -> Figures:
    """Batches of 500 on five workers: the part of their slots' time spent on tasks, the median of several."""
    slots = BATCH_WORKERS * SLOTS
    seconds, busy = [], []
    for _ in range(BATCHES):
        started = time.perf_counter()
        results = await asyncio.gather(*(ask(connection, "batch") for _ in range(BATCH_TASKS)))
        seconds.append(time.perf_counter() - started)
        worked_s = sum(answer.timings.total_duration_ns for r in results for answer in r.answers) / 1e9
        busy.append(worked_s / (slots * seconds[-1]))
    return {
        "seconds": statistics.median(seconds),
        "busy_share": statistics.median(busy),
        "busy_shares": busy,
        "busy_share_if_the_mesh_took_no_time": BATCH_TASKS / slots / -(-BATCH_TASKS // slots),
    }


async def latencies_ms(connection: Client, count: int) -> list[float]:
    """Interactive asks, one after another."""
    taken = []
    for _ in range(count):
        started = time.perf_counter()
        await ask(connection, "interactive")
        taken.append((time.perf_counter() - started) * 1000)
    return taken


def p95(values: list[float]) -> float:
    """The 95th percentile."""
    return statistics.quantiles(values, n=20)[-1]


async def beside_a_batch(mesh: BenchMesh) -> Figures:
    """Interactive asks on an idle mesh, then while 5,000 tasks of a batch are queued."""
    idle = await latencies_ms(mesh.connection, IDLE_ASKS)
    other = await nats.connect(mesh.url)
    try:
        submit = payload("batch")
        for _ in range(LONG_BATCH_TASKS // 100):
            await asyncio.gather(
                *(other.request(subjects.SUBMIT, submit, timeout=TIMEOUT_S) for _ in range(100))
            )
        async with Choir(mesh.url) as client:
            before = (await client.status()).queued
            beside = await latencies_ms(mesh.connection, BESIDE_ASKS)
            after = (await client.status()).queued
    finally:
        await other.close()
    return {
        "idle_p50_ms": statistics.median(idle),
        "idle_p95_ms": p95(idle),
        "beside_p50_ms": statistics.median(beside),
        "beside_p95_ms": p95(beside),
        "queued_before": before,
        "queued_after": after,
    }


async def measure(folder: Path) -> Figures:
    """All of it, each number of workers on a mesh of its own."""
    rates: dict[int, float] = {}
    figures: Figures = {}
    for workers in WORKERS:
        async with AsyncExitStack() as stack:
            mesh = await stack.enter_async_context(bench_mesh(folder / str(workers), (MODEL,)))
            await start(mesh, workers)
            rates[workers] = await throughput(mesh.connection, workers)
            if workers == BATCH_WORKERS:
                figures["batch"] = await batch(mesh.connection)
                figures["interactive"] = await beside_a_batch(mesh)
    ideal = SLOTS / DELAY_S
    figures["answers_per_s"] = {str(workers): rate for workers, rate in rates.items()}
    figures["of_ideal"] = {str(workers): rate / (ideal * workers) for workers, rate in rates.items()}
    figures["of_linear"] = {str(workers): rate / (rates[1] * workers) for workers, rate in rates.items()}
    return figures


def run() -> Report:
    """Measures on this machine's disk, in a folder that is gone afterwards."""
    with tempfile.TemporaryDirectory() as folder:
        figures = uvloop.run(measure(Path(folder)))
    waits = figures["interactive"]
    limit_ms = 1.5 * waits["idle_p95_ms"] + DELAY_S * 1000
    return Report(
        bench="scaling",
        raw=figures,
        targets=(
            *(
                at_least(f"throughput of {workers} workers / linear", share, 0.97)
                for workers, share in figures["of_linear"].items()
            ),
            at_least("busy share of 5 workers in a batch of 500", figures["batch"]["busy_share"], 0.95),
            at_most("p95 of an ask beside a batch of 5,000, ms", waits["beside_p95_ms"], limit_ms),
        ),
        notes=(
            f"A worker: {SLOTS} slots, {DELAY_S * 1000:.0f} ms a task; {WORKERS_PER_PROCESS} in a process. "
            "linear: so many times what one worker did; ideal: so many times what no mesh could exceed.",
        ),
    )
