"""The load generator itself: how fast one process can be, whether it keeps its times, and what it adds.

It runs against a bare nats-py responder in a process of its own. What measuring adds is taken against a
mesh of one `instant` model: single requests by the generator and by nats-py's own `request` alternate, and
the medians of their rounds' medians are compared.
"""

from __future__ import annotations

import asyncio
import json
import statistics
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import nats.errors
import numpy as np
import uvloop

from loadtest.bench.bare import ECHO
from loadtest.bench.processes import BenchMesh, bench_mesh
from loadtest.bench.report import Report, at_least, at_most
from loadtest.generate.arrivals import Rate
from loadtest.generate.generator import Generator
from loadtest.generate.generator_pool import GeneratorPool
from loadtest.generate.plan import LoadPlan
from loadtest.generate.workloads import AskOptions
from loadtest.outcome.measurements import Measurements
from loadtest.outcome.metrics import e2e, lag
from loadtest.targets.mesh_target import MeshTarget
from schemas import subjects

MODEL = "alpha"
TARGET_RATE = 5_000.0
USERS = 64
SECONDS = 8.0
ROUNDS, PER_ROUND = 9, 200
READY_S = 30.0
ASK = AskOptions(models=(MODEL,), stream=False, timeout_s=30.0)


def run() -> Report:
    """Measures, and holds the figures against their targets."""
    with tempfile.TemporaryDirectory() as folder:
        return uvloop.run(measure(Path(folder)))


async def measure(folder: Path) -> Report:
    """All figures of one run."""
    async with bench_mesh(folder / "broker", [MODEL]) as mesh, echoing(mesh):
        closed = await generate(mesh, folder, LoadPlan("fast", ASK, concurrency=USERS, duration_s=SECONDS))
        full = await generate(mesh, folder, paced(TARGET_RATE))
        half = await generate(mesh, folder, paced(TARGET_RATE / 2))
        mesh.spawn("services.router")
        mesh.spawn("services.aggregator")
        mesh.spawn_agent(MODEL)
        await mesh.wait_ready([MODEL])
        ours_ms, bare_ms = await added_latency(mesh)
    fastest = max(rate_of(closed), rate_of(full))
    lag_ms = float(np.percentile(lag(half), 99))
    added = ours_ms / bare_ms - 1
    raw = {
        "closed_loop_per_s": rate_of(closed),
        "open_loop_per_s": rate_of(full),
        "half_rate": {
            "per_s": rate_of(half),
            "lag_p99_ms": lag_ms,
            "e2e_p50_ms": float(np.median(e2e(half))),
        },
        "cpu_share": {"closed": closed.cpu_shares[0], "half": half.cpu_shares[0]},
        "ask_p50_ms": {"generator": ours_ms, "bare": bare_ms},
    }
    targets = (
        at_least("requests_per_s", fastest, TARGET_RATE),
        at_most("lag_p99_ms_at_half", lag_ms, 2.0),
        at_most("added_latency", added, 0.02),
    )
    return Report(bench="generator", raw=raw, targets=targets)


def paced(rate: float) -> LoadPlan:
    """Poisson arrivals for a few seconds."""
    return LoadPlan(f"paced-{rate:.0f}", ASK, rate=Rate(rate), duration_s=SECONDS)


async def generate(mesh: BenchMesh, folder: Path, plan: LoadPlan) -> Measurements:
    """What one generator process measures of the responder."""
    place = folder / plan.run
    place.mkdir()
    return await GeneratorPool(plan, mesh.url, place, target=ECHO).run(lambda _: None)


def rate_of(m: Measurements) -> float:
    """Answered requests per second."""
    return float(m.good.sum() / (m.done_s[m.good].max() - m.sent_s.min()))


@asynccontextmanager
async def echoing(mesh: BenchMesh) -> AsyncIterator[None]:
    """The bare responder."""
    mesh.spawn("loadtest.bench.bare", mesh.url, "echo")
    async with asyncio.timeout(READY_S):
        while not await _echoes(mesh):  # noqa: ASYNC110  (the responder is asked)
            await asyncio.sleep(0.05)
    yield


async def _echoes(mesh: BenchMesh) -> bool:
    try:
        await mesh.connection.request(ECHO, b"?", timeout=1.0)
    except (nats.errors.NoRespondersError, nats.errors.TimeoutError):
        return False
    return True


async def added_latency(mesh: BenchMesh) -> tuple[float, float]:
    """Median latency of `choir.ask` in ms, by the generator and by nats-py alone, in turns."""
    ours, bare = [], []
    for number in range(ROUNDS):
        ours.append(await _by_generator(mesh.url, number))
        bare.append(await _by_request(mesh))
    return statistics.median(ours), statistics.median(bare)


async def _by_generator(url: str, number: int) -> float:
    plan = LoadPlan(f"added-{number}-{time.time_ns():x}", ASK, concurrency=1, requests=PER_ROUND)
    generator = Generator(MeshTarget(url, plan.run), ASK.timeout_s)
    await generator.open()
    generator.start()
    await generator.run_closed(plan.share(0), users=1, until_s=None)
    await generator.finish()
    return statistics.median((record.done_s - record.sent_s) * 1000 for record in generator.records)


async def _by_request(mesh: BenchMesh) -> float:
    times_ms = []
    run = f"bare-{time.time_ns():x}"
    for request in LoadPlan(run, ASK, concurrency=1, requests=PER_ROUND).share(0):
        payload = json.dumps({"request_id": f"{run}-{request.number}", **request.fields}).encode()
        started_s = time.perf_counter()
        await mesh.connection.request(subjects.ASK, payload, timeout=READY_S)
        times_ms.append((time.perf_counter() - started_s) * 1000)
    return statistics.median(times_ms)
