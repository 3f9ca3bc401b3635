"""What three copies cost, and TLS: `choir.ask` with three brokers beside one, and beside one that speaks TLS.

The same services run three times at once: with one broker, with one that speaks TLS, and with three on
loopback that keep everything three times. Rounds of asks alternate between them.
"""

from __future__ import annotations

import os
import statistics
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import AsyncExitStack, contextmanager
from pathlib import Path
from typing import Any

import uvloop

from infra.broker.broker import Broker
from infra.broker.local_cluster import LocalCluster
from infra.broker.tls.authority import Authority
from loadtest.bench.overhead import ENSEMBLE, SINGLE, WARM_UP, ask, latencies_ms, rate_per_s
from loadtest.bench.processes import BenchMesh, bench_mesh
from loadtest.bench.report import Report, at_most
from services.chassis.settings import MeshSection

MODELS = ("alpha", "beta", "gamma", "delta")
ROUNDS = 7
SINGLE_PER_ROUND, ENSEMBLE_PER_ROUND = 100, 40
AT_ONCE, PER_RATE, RATE_ROUNDS = 64, 2_000, 3
CA_VARIABLE = "CHOIR_MESH__CA"


async def start(mesh: BenchMesh, env: Mapping[str, str]) -> BenchMesh:
    """The services of one of the meshes."""
    mesh.spawn("services.router", env=env)
    mesh.spawn("services.aggregator", env=env)
    for model in MODELS:
        mesh.spawn_agent(model, env, slots=32)
    await mesh.wait_ready(MODELS)
    return mesh


@contextmanager
def trusted(ca: Path) -> Iterator[dict[str, str]]:
    """For this process and those that it starts: what an authority has certified is a broker of ours."""
    env = {CA_VARIABLE: str(ca)}
    os.environ.update(env)
    try:
        yield env
    finally:
        del os.environ[CA_VARIABLE]


async def measure(folder: Path) -> dict[str, Any]:
    """Latencies, rates and losses of one run."""
    authority = Authority(folder / "tls")
    authority.renew(["127.0.0.1"])
    secure = Broker(folder / "secure", tls=authority.files)
    credentials = MeshSection(ca=str(authority.certificate)).credentials
    async with AsyncExitStack() as stack:
        meshes = {
            "one broker": await start(
                await stack.enter_async_context(bench_mesh(folder / "one", MODELS)), {}
            ),
            "three brokers": await start(
                await stack.enter_async_context(
                    bench_mesh(folder / "three", MODELS, LocalCluster(folder / "three"))
                ),
                {},
            ),
        }
        with trusted(authority.certificate) as env:
            mesh = await stack.enter_async_context(bench_mesh(folder / "secure", MODELS, secure, credentials))
            meshes["one broker, TLS"] = await start(mesh, env)
        calls = {
            (kind, name): (ask(mesh.connection, payload), count)
            for name, mesh in meshes.items()
            for kind, payload, count in (
                ("single", SINGLE, SINGLE_PER_ROUND),
                ("ensemble", ENSEMBLE, ENSEMBLE_PER_ROUND),
            )
        }
        for call, _ in calls.values():
            await latencies_ms(call, WARM_UP)
        p50s: dict[tuple[str, str], list[float]] = {key: [] for key in calls}
        lost = 0
        for _ in range(ROUNDS):
            for key, (call, count) in calls.items():
                taken, failed = await latencies_ms(call, count)
                p50s[key].append(statistics.median(taken))
                lost += failed
        rates: dict[str, list[float]] = {name: [] for name in meshes}
        for _ in range(RATE_ROUNDS):
            for name in meshes:
                rate, failed = await rate_per_s([calls["single", name][0]] * AT_ONCE, PER_RATE)
                rates[name].append(rate)
                lost += failed
    ratios = {
        f"{kind}, {name}": statistics.median(
            this / that for this, that in zip(p50s[kind, name], p50s[kind, "one broker"], strict=True)
        )
        for kind, name in calls
        if name != "one broker"
    }
    return {
        "p50_ms": {f"{kind}, {name}": statistics.median(p50s[kind, name]) for kind, name in calls},
        "p50_ratio": ratios,
        f"requests_per_s_{AT_ONCE}_at_once": {
            name: statistics.median(found) for name, found in rates.items()
        },
        "lost": lost,
    }


def run() -> Report:
    """Measures on this machine's disk, in a folder that is gone afterwards."""
    with tempfile.TemporaryDirectory() as folder:
        raw = uvloop.run(measure(Path(folder)))
    return Report(
        bench="cluster",
        raw=raw,
        targets=(at_most("requests lost", raw["lost"], 0.0),),
        notes=(
            "instant models; everything in a process of its own; all brokers on one host, and one disk, "
            "which "
            "three copies share: file streams are synced on every write.",
        ),
    )
