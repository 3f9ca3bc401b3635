"""What three copies cost, and TLS: `choir.ask` with three brokers beside one, and beside one that speaks TLS.

The same services run three times at once: with one broker, with one that speaks TLS, and with three on
loopback that keep everything three times. Rounds of asks alternate between them. There are as many of them as
end within DEADLINE_S on two cores that others use as well; a run that takes longer is ended, and says
where it was.
"""

from __future__ import annotations

import asyncio
import os
import statistics
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import AsyncExitStack, contextmanager
from pathlib import Path
from typing import Any

import uvloop

from infra.broker.broker import Broker
from infra.broker.local_cluster import LocalCluster
from infra.broker.tls.authority import Authority
from loadtest.bench.mesh.overhead import ENSEMBLE, SINGLE, ask, latencies_ms, rate_per_s
from loadtest.bench.processes import BenchMesh, bench_mesh
from loadtest.bench.report import Report, at_most
from loadtest.faults import LoadtestError
from services.chassis.settings import MeshSection

MODELS = ("alpha", "beta", "gamma", "delta")
ROUNDS = 5
SINGLE_PER_ROUND, ENSEMBLE_PER_ROUND = 40, 10
WARM_UP = 20
AT_ONCE, PER_RATE, RATE_ROUNDS = 64, 500, 3
DEADLINE_S = 150.0
CA_VARIABLE = "CHOIR_MESH__CA"


def start(mesh: BenchMesh, env: Mapping[str, str] | None = None) -> None:
    """Starts the services of one of the meshes, and does not wait."""
    mesh.spawn("services.router", env=env)
    mesh.spawn("services.aggregator", env=env)
    for model in MODELS:
        mesh.spawn_agent(model, env, slots=32)


@contextmanager
def trusted(ca: Path) -> Iterator[dict[str, str]]:
    """For this process and those that it starts: what an authority has certified is a broker of ours."""
    env = {CA_VARIABLE: str(ca)}
    os.environ.update(env)
    try:
        yield env
    finally:
        del os.environ[CA_VARIABLE]


class Steps:
    """What a run is doing, and how long it did what came before."""

    def __init__(self) -> None:
        self.now = ""
        self.seconds: dict[str, float] = {}
        self._began_s = time.perf_counter()

    def begin(self, step: str) -> None:
        """Ends the step before."""
        self.end()
        self.now = step

    def end(self) -> None:
        """The last one is done."""
        ended_s = time.perf_counter()
        if self.now:
            self.seconds[self.now] = round(ended_s - self._began_s, 1)
        self.now, self._began_s = "", ended_s


async def measure(folder: Path) -> dict[str, Any]:
    """Latencies, rates and losses of one run; LoadtestError if it is not done within DEADLINE_S."""
    steps = Steps()
    try:
        async with asyncio.timeout(DEADLINE_S) as deadline:
            found = await _measure(folder, steps, deadline)
    except TimeoutError as error:
        done = ", ".join(f"{step} {seconds} s" for step, seconds in steps.seconds.items()) or "nothing"
        raise LoadtestError(
            f"not done after {DEADLINE_S:.0f} s, while it was at: {steps.now}; done were: {done}. "
            "Run it when nobody else uses the machine"
        ) from error
    steps.end()
    return {**found, "seconds": steps.seconds}


async def _measure(folder: Path, steps: Steps, deadline: asyncio.Timeout) -> dict[str, Any]:
    steps.begin("start")
    authority = Authority(folder / "tls")
    authority.renew(["127.0.0.1"])
    secure = Broker(folder / "secure", tls=authority.files)
    credentials = MeshSection(ca=str(authority.certificate)).credentials
    async with AsyncExitStack() as stack:
        meshes = {
            "one broker": await stack.enter_async_context(bench_mesh(folder / "one", MODELS)),
            "three brokers": await stack.enter_async_context(
                bench_mesh(folder / "three", MODELS, LocalCluster(folder / "three"))
            ),
        }
        for mesh in meshes.values():
            start(mesh)
        with trusted(authority.certificate) as env:
            mesh = await stack.enter_async_context(bench_mesh(folder / "secure", MODELS, secure, credentials))
            start(mesh, env)
            await mesh.wait_ready(MODELS)
        for other in meshes.values():
            await other.wait_ready(MODELS)
        meshes["one broker, TLS"] = mesh
        calls = {
            (kind, name): (ask(mesh.connection, payload), count)
            for name, mesh in meshes.items()
            for kind, payload, count in (
                ("single", SINGLE, SINGLE_PER_ROUND),
                ("ensemble", ENSEMBLE, ENSEMBLE_PER_ROUND),
            )
        }
        steps.begin("warm-up")
        for call, _ in calls.values():
            await latencies_ms(call, WARM_UP)
        steps.begin("latencies")
        p50s: dict[tuple[str, str], list[float]] = {key: [] for key in calls}
        lost = 0
        for _ in range(ROUNDS):
            for key, (call, count) in calls.items():
                taken, failed = await latencies_ms(call, count)
                p50s[key].append(statistics.median(taken))
                lost += failed
        steps.begin("rates")
        rates: dict[str, list[float]] = {name: [] for name in meshes}
        for _ in range(RATE_ROUNDS):
            for name in meshes:
                rate, failed = await rate_per_s([calls["single", name][0]] * AT_ONCE, PER_RATE)
                rates[name].append(rate)
                lost += failed
        deadline.reschedule(None)  # the figures are there: what ends the services has deadlines of its own
        steps.begin("end")
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
            "which three copies share: file streams are synced on every write.",
        ),
    )
