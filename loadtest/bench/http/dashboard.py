"""What the dashboard costs: how soon a page is there, what fifty open ones take, what pages weigh.

A mesh with the leases of twenty nodes and ten thousand requests in its event database, each service in a
process of its own. Page times are of HTTP alone: the page and what it loads, over one connection. Dashboards
are open streams of the first page, in turns with none, while requests come at a steady rate.
"""

from __future__ import annotations

import asyncio
import json
import re
import statistics
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import duckdb
import httpx
import uvloop
from nats.aio.client import Client

from infra.broker.local_cluster import free_port
from loadtest.bench.http.http_client import require, until_listening
from loadtest.bench.mesh.overhead import MODELS, SINGLE, ask
from loadtest.bench.mesh.synthetic_tasks import TABLES, TASKS_OF_A_REQUEST, fill_database
from loadtest.bench.processes import BenchMesh, bench_mesh, cpu_seconds
from loadtest.bench.report import Report, at_most
from schemas import subjects
from schemas.nodes.lease import NodeLease, ServedModel
from services.chassis.nats.bucket import Bucket, messages
from services.metrics.store.database import FILE_NAME

NODES, REQUESTS = 20, 10_000
DASHBOARDS, REQUESTS_PER_S = 50, 20
ROUNDS, ROUND_S = 3, 15.0
LOADS = 20
LEASE_EVERY_S = 2.0
PAGES = (
    *("/dashboard", "/dashboard/ask", "/dashboard/requests?within=7+d", "/dashboard/pipelines"),
    *(
        "/dashboard/nodes",
        "/dashboard/models",
        "/dashboard/workers",
        "/dashboard/runs",
        "/dashboard/queries?query=latency_by_model",
        "/dashboard/admin",
    ),
)
LOADED = re.compile(r'(?:src|href)="(/dashboard/static/[^"]+)"')


def make_recent(path: Path) -> None:
    """Has the events of a made database end now: pages show the last hours."""
    with duckdb.connect(str(path)) as database:
        for table in TABLES:
            late = f'SELECT max("at") FROM {table}'
            database.execute(f'UPDATE {table} SET "at" = "at" + (now()::TIMESTAMP - ({late}))')


async def keep_nodes(client: Client) -> None:
    """Writes the leases of nodes that are not there, as they would, until it is cancelled."""
    bucket = Bucket(client, subjects.NODES_BUCKET, messages(NodeLease))
    while True:
        now_s = time.time()
        for number in range(NODES):
            lease = NodeLease(
                service="agent",
                instance=f"agent-{number}",
                host=f"host-{number}",
                pid=1,
                version="0",
                state="ready",
                started_at_s=now_s - 3_600,
                seen_at_s=now_s,
                models=(ServedModel(name=f"model-{number}", backend="instant", slots=4),),
                slots=4,
                memory_used_bytes=100_000_000 + int(now_s) % 1_000_000,
            )
            await bucket.put(subjects.node_key("agent", lease.instance), lease)
        await asyncio.sleep(LEASE_EVERY_S)


@asynccontextmanager
async def dashboards(port: int, count: int) -> AsyncIterator[list[int]]:
    """So many open dashboards, and how many bytes each has read since; all have their first fragments."""
    read = [0] * count
    first = [asyncio.Event() for _ in range(count)]

    async def look(number: int, http: httpx.AsyncClient) -> None:
        async with http.stream("GET", "/dashboard/live/mesh") as reply:
            async for part in reply.aiter_bytes():
                read[number] += len(part)
                first[number].set()

    limits = httpx.Limits(max_connections=None)
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=60, limits=limits) as http:
        looking = [asyncio.create_task(look(number, http)) for number in range(count)]
        try:
            async with asyncio.timeout(60):
                for each in first:
                    await each.wait()
            yield read
            require(not any(task.done() for task in looking), "a dashboard's stream has ended")
        finally:
            for task in looking:
                task.cancel()
            await asyncio.gather(*looking, return_exceptions=True)


async def under_load(mesh: BenchMesh) -> float:
    """Processor time that all services took in a round of steady requests, by its seconds."""
    call = ask(mesh.connection, SINGLE)
    used_s, started = services_cpu(mesh), time.perf_counter()
    for number in range(int(ROUND_S * REQUESTS_PER_S)):
        await asyncio.sleep(max(0.0, started + number / REQUESTS_PER_S - time.perf_counter()))
        require(await call(), "a request was not answered")
    took_s = time.perf_counter() - started
    return (services_cpu(mesh) - used_s) / took_s


def services_cpu(mesh: BenchMesh) -> float:
    """Seconds that all processes of the mesh have used so far."""
    return sum(cpu_seconds(process.pid) for process in mesh.processes)


async def page_ms(http: httpx.AsyncClient, path: str) -> tuple[float, int]:
    """How long a page and what it loads take, and its bytes with these."""
    started = time.perf_counter()
    page = await http.get(path)
    require(page.status_code == 200, f"{path} says {page.status_code}")
    if path.startswith("/dashboard/requests"):
        require("The latest 100 requests" in page.text, "the page of requests has none")
    weight = len(page.content)
    for loaded in dict.fromkeys(LOADED.findall(page.text)):
        weight += len((await http.get(loaded)).content)
    return (time.perf_counter() - started) * 1000, weight


async def measure(folder: Path) -> dict[str, Any]:
    """Page times, weights, and what open dashboards cost."""
    port = free_port()
    database = folder / "metrics"
    await asyncio.to_thread(fill_database, database / FILE_NAME, REQUESTS * TASKS_OF_A_REQUEST)
    await asyncio.to_thread(make_recent, database / FILE_NAME)
    async with AsyncExitStack() as stack:
        mesh = await stack.enter_async_context(bench_mesh(folder / "mesh", MODELS[:1]))
        mesh.spawn("services.metrics", env={"CHOIR_METRICS__FOLDER": str(database)})
        for service in ("router", "aggregator"):
            mesh.spawn(f"services.{service}")
        mesh.spawn_agent(MODELS[0], slots=16)
        await mesh.wait_ready(MODELS[:1])
        keeping = asyncio.create_task(keep_nodes(mesh.connection))
        stack.callback(keeping.cancel)
        mesh.spawn("services.gateway", env={"CHOIR_GATEWAY__PORT": str(port)})
        await until_listening(port)
        url = f"http://127.0.0.1:{port}"
        times: dict[str, list[float]] = {path: [] for path in PAGES}
        weights: dict[str, int] = {}
        async with httpx.AsyncClient(base_url=url, timeout=60) as http:
            for path in PAGES * (LOADS + 1):
                ms, weights[path] = await page_ms(http, path)
                times[path].append(ms)
        without, beside, per_s = [], [], []
        for _ in range(ROUNDS):
            without.append(await under_load(mesh))
            async with dashboards(port, DASHBOARDS) as read:
                before = sum(read)
                beside.append(await under_load(mesh))
                per_s.append((sum(read) - before) / ROUND_S / DASHBOARDS)
        with suppress(asyncio.CancelledError):
            keeping.cancel()
            await keeping
    costs = [100 * (with_them - alone) for with_them, alone in zip(beside, without, strict=True)]
    return {
        "nodes": NODES,
        "requests_in_the_database": REQUESTS,
        "page_ms": {path: statistics.median(taken[1:]) for path, taken in times.items()},
        "first_page_ms_p95": statistics.quantiles(times["/dashboard"][1:], n=20)[-1],
        "page_bytes": weights,
        "dashboards": DASHBOARDS,
        "percent_of_a_core_without": [100 * share for share in without],
        "percent_of_a_core_beside": [100 * share for share in beside],
        "dashboards_percent_of_a_core": statistics.median(costs),
        "bytes_a_second_of_a_dashboard": statistics.median(per_s),
    }


def run() -> Report:
    """Measures on this machine's disk, in a folder that is gone afterwards."""
    with tempfile.TemporaryDirectory() as folder:
        found = uvloop.run(measure(Path(folder)))
    return Report(
        bench="dashboard",
        raw=json.loads(json.dumps(found)),
        targets=(
            at_most("first page with what it loads, p95, ms", found["first_page_ms_p95"], 300.0),
            at_most("50 dashboards, % of a core", found["dashboards_percent_of_a_core"], 5.0),
            at_most("the heaviest page, bytes", float(max(found["page_bytes"].values())), 200_000.0),
        ),
        notes=(
            "Page times are of HTTP over one connection; a browser lays the page out besides. The script "
            "that draws charts (about 900 kB) is loaded only where a chart is, and is in no page's weight.",
        ),
    )
