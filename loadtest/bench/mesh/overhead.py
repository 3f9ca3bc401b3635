"""What the mesh itself costs: `choir.ask` on the `instant` backend beside a bare nats-py request.

Everything runs in its own process on one host, file streams are synced on every write, and all figures
come from the same run: rounds of bare requests, single asks and ensembles of four alternate, and the
medians of the rounds' medians are compared. A second mesh, which publishes no events, takes its turn with the
first: that is what events cost. The floor is what a durable request costs with bare nats-py: two durable
writes and four hops. How much processor time each process uses for a request of many clients says where these
stop.
"""

from __future__ import annotations

import asyncio
import json
import os
import statistics
import tempfile
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import psutil
import uvloop
from nats.aio.client import Client

from infra.broker.broker import Broker
from loadtest.bench.bare import DURABLE, ECHO, make_streams
from loadtest.bench.processes import BenchMesh, bench_mesh, choir_up, clients, cpu_seconds, models_of
from loadtest.bench.report import Report, at_least, at_most
from schemas import subjects
from schemas.errors import MeshUnreachable

MODELS = ("alpha", "beta", "gamma", "delta")
ROUNDS = 7
BARE_PER_ROUND, SINGLE_PER_ROUND, ENSEMBLE_PER_ROUND = 400, 150, 80
CLIENTS = 64
BARE_AT_ONCE, SINGLE_AT_ONCE = 20_000, 3_000
WARM_UP = 50
RATE_ROUNDS = 3
IDLE_S = 10.0
SETTLE_S = 3.0
READY_DEADLINE_S = 60.0
TIMEOUT_S = 30.0
WITHOUT_EVENTS = {"CHOIR_EVENTS__ENABLED": "false"}

SINGLE = json.dumps({"prompt": "What is the capital of France?", "model": MODELS[0]}).encode()
ENSEMBLE = json.dumps({"prompt": "What is the capital of France?", "strategies": ["majority"]}).encode()

Call = Callable[[], Awaitable[bool]]


def bare(connection: Client) -> Call:
    """One request to the echo process; True if it came back."""

    async def call() -> bool:
        reply = await connection.request(ECHO, SINGLE, timeout=TIMEOUT_S)
        return reply.data == SINGLE

    return call


def durable(connection: Client) -> Call:
    """One request to the floor's relay; True if it came back."""

    async def call() -> bool:
        reply = await connection.request(DURABLE, SINGLE, timeout=TIMEOUT_S)
        return reply.data == SINGLE

    return call


def ask(connection: Client, payload: bytes) -> Call:
    """One `choir.ask`; True if it was answered with a text."""

    async def call() -> bool:
        reply = await connection.request(subjects.ASK, payload, timeout=TIMEOUT_S)
        text: str | None = json.loads(reply.data).get("text")
        return text == "ok"

    return call


async def latencies_ms(call: Call, count: int) -> tuple[list[float], int]:
    """Latencies of one request after another, and how many failed."""
    taken, failed = [], 0
    for _ in range(count):
        started = time.perf_counter()
        failed += not await call()
        taken.append((time.perf_counter() - started) * 1000)
    return taken, failed


async def rate_per_s(calls: Sequence[Call], count: int) -> tuple[float, int]:
    """Requests per second of clients that each ask again as soon as they are answered, and failures."""
    turns = iter(range(count))
    failed = 0

    async def client(call: Call) -> None:
        nonlocal failed
        for _ in turns:
            failed += not await call()

    started = time.perf_counter()
    await asyncio.gather(*(client(call) for call in calls))
    return count / (time.perf_counter() - started), failed


async def start(mesh: BenchMesh, env: Mapping[str, str] | None = None) -> None:
    """The mesh that is measured, the echo, and the floor."""
    await make_streams(mesh.connection.jetstream())
    for role in ("echo", "relay", "worker"):
        mesh.spawn("loadtest.bench.bare", mesh.url, role)
    mesh.spawn("services.router", env=env)
    mesh.spawn("services.aggregator", env=env)
    for model in MODELS:
        mesh.spawn_agent(model, env, slots=32)
    await mesh.wait_ready(MODELS)


async def measure_mesh(folder: Path) -> dict[str, Any]:
    """Latencies, rates and losses of one run."""
    broker = Broker(folder)
    async with (
        bench_mesh(folder, MODELS, broker) as mesh,
        bench_mesh(folder.with_name("quiet"), MODELS) as quiet,
    ):
        await start(mesh)
        await start(quiet, WITHOUT_EVENTS)
        calls = {
            "bare": (bare(mesh.connection), BARE_PER_ROUND),
            "floor": (durable(mesh.connection), SINGLE_PER_ROUND),
            "single": (ask(mesh.connection, SINGLE), SINGLE_PER_ROUND),
            "single without events": (ask(quiet.connection, SINGLE), SINGLE_PER_ROUND),
            "ensemble": (ask(mesh.connection, ENSEMBLE), ENSEMBLE_PER_ROUND),
            "ensemble without events": (ask(quiet.connection, ENSEMBLE), ENSEMBLE_PER_ROUND),
        }
        for call, _ in calls.values():
            await latencies_ms(call, WARM_UP)
        p50s: dict[str, list[float]] = {name: [] for name in calls}
        p95s: dict[str, list[float]] = {name: [] for name in calls}
        lost = 0
        for _ in range(ROUNDS):
            for name, (call, count) in calls.items():
                taken, failed = await latencies_ms(call, count)
                p50s[name].append(statistics.median(taken))
                p95s[name].append(statistics.quantiles(taken, n=20)[-1])
                lost += failed
        async with clients(mesh.url, CLIENTS) as connections:
            at_once = {
                "bare": ([bare(connection) for connection in connections], BARE_AT_ONCE),
                "floor": ([durable(connection) for connection in connections], SINGLE_AT_ONCE),
                "single": ([ask(connection, SINGLE) for connection in connections], SINGLE_AT_ONCE),
                "bare on one connection": ([calls["bare"][0]] * CLIENTS, BARE_AT_ONCE),
                "single on one connection": ([calls["single"][0]] * CLIENTS, SINGLE_AT_ONCE),
            }
            rates: dict[str, list[float]] = {name: [] for name in at_once}
            used_us: dict[str, list[Counter[str]]] = {name: [] for name in at_once}
            for _ in range(RATE_ROUNDS):
                for name, (several, count) in at_once.items():
                    before = processor_us(mesh, broker)
                    rate, failed = await rate_per_s(several, count)
                    used_us[name].append(processor_us(mesh, broker) - before)
                    rates[name].append(rate)
                    lost += failed
    return {
        "p50_ms": {name: statistics.median(values) for name, values in p50s.items()},
        "p95_ms": {name: statistics.median(values) for name, values in p95s.items()},
        f"requests_per_s_of_{CLIENTS}_clients": {n: statistics.median(v) for n, v in rates.items()},
        f"processor_us_per_request_of_{CLIENTS}_clients": {
            f"{name}, {process}": statistics.median(used[process] for used in used_us[name])
            / at_once[name][1]
            for name in ("floor", "single")
            for process in sorted(set().union(*used_us[name]))
        },
        "p50_ratio": {name: _ratio(p50s[name], p50s["bare"]) for name in ("single", "ensemble")},
        "p50_ratio_to_the_floor": _ratio(p50s["single"], p50s["floor"]),
        "p50_ratio_of_events": {
            name: _ratio(p50s[name], p50s[f"{name} without events"]) for name in ("single", "ensemble")
        },
        "lost": lost,
    }


def processor_us(mesh: BenchMesh, broker: Broker) -> Counter[str]:
    """Microseconds of processor time that each kind of process has used so far, and the clients here."""
    pids = [(str(process.args[2]), process.pid) for process in mesh.processes]  # type: ignore[index]
    used: Counter[str] = Counter()
    for name, pid in (*pids, ("broker", broker.pid), ("clients", os.getpid())):
        times = psutil.Process(pid).cpu_times()
        used[name] += round((times.user + times.system) * 1e6)
    return used


def _ratio(these: list[float], those: list[float]) -> float:
    """Each round's p50 against the same round's other one; the median of the rounds."""
    return statistics.median(this / that for this, that in zip(these, those, strict=True))


async def measure_demo(folder: Path) -> dict[str, float]:
    """How long `choir up` takes with the four demo models, and what it costs when nobody asks."""
    started = time.perf_counter()
    with choir_up(folder) as process:
        while len(await models_of(folder)) < len(MODELS):
            if time.perf_counter() > started + READY_DEADLINE_S:
                raise MeshUnreachable(f"choir up did not serve {len(MODELS)} models in {READY_DEADLINE_S} s")
            await asyncio.sleep(0.05)
        ready_s = time.perf_counter() - started
        await asyncio.sleep(SETTLE_S)
        before = cpu_seconds(process.pid)
        await asyncio.sleep(IDLE_S)
        used_s = cpu_seconds(process.pid) - before
    return {"up_ready_s": ready_s, "idle_percent_of_a_core": used_s / IDLE_S * 100}


def run() -> Report:
    """Measures on this machine's disk, in a folder that is gone afterwards."""
    with tempfile.TemporaryDirectory() as folder:
        mesh = uvloop.run(measure_mesh(Path(folder) / "mesh"))
        demo = uvloop.run(measure_demo(Path(folder) / "demo"))
    rates = mesh[f"requests_per_s_of_{CLIENTS}_clients"]
    return Report(
        bench="overhead",
        raw={**mesh, **demo},
        targets=(
            at_most("single p50 / floor p50", mesh["p50_ratio_to_the_floor"], 1.3),
            at_most("ensemble of four p50 / bare p50", mesh["p50_ratio"]["ensemble"], 15.0),
            at_most("single p50 with events / without", mesh["p50_ratio_of_events"]["single"], 1.1),
            at_most("ensemble p50 with events / without", mesh["p50_ratio_of_events"]["ensemble"], 1.1),
            at_least(f"requests per second of {CLIENTS} clients", rates["single"], 3_000.0),
            at_most("requests lost", mesh["lost"], 0.0),
            at_most("idle mesh of four agents, percent of a core", demo["idle_percent_of_a_core"], 1.5),
            at_most("choir up ready, seconds", demo["up_ready_s"], 5.0),
        ),
        notes=(
            "bare: one nats-py request to an echo process. floor: one that is stored, worked on by another "
            "process, and whose answer is stored. Everything has a process of its own; "
            "file streams are synced on every write.",
        ),
    )
