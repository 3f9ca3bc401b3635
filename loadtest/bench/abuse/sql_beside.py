"""What abusive statements cost the ingest of events, and how soon each of them is over.

2,000 events a second are stored while eight clients at a time send statements that never end, or take all
the memory and the disk that they get. Once all of these are a tenant's, which sees its own rows, and once an
operator's, who sees all; each time on an event database of its own, whose service is told to stop in the
midst of the next statements.

lag         how old the oldest event is that is not stored, by the consumer of the service: it acknowledges
            what it has stored
overrun     how long after its limit a client was told that its statement was cut off
visible     how old the newest row is that another tenant's statement finds, its own time included
spill       what lies in the folder of what does not fit into the memory
goes on     processor time of the service and its processes in the second after the last statement was over
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import statistics
import tempfile
import time
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from itertools import cycle, islice
from pathlib import Path
from typing import Any

import psutil
import uvloop
from nats.aio.client import Client

from infra.host.seeding import seed_tenants
from infra.testing.hostile.statements import ENDLESS, GREEDY
from loadtest.bench.mesh.ingest import peak_mb, start_service
from loadtest.bench.processes import BenchMesh, bench_mesh, cpu_seconds
from loadtest.bench.report import Report, at_most
from schemas import subjects
from schemas.broker.catalog import Role
from schemas.errors import ChoirError
from schemas.events import TaskCompleted
from schemas.replies import Timings
from schemas.requests.tenants import Tenant
from schemas.subjects import owned_id
from services.chassis.process.cancelling import ended
from services.client.client import Choir
from services.metrics.settings import MetricsSection
from services.metrics.store.database import SPILL_FOLDER
from services.metrics.store.memory_limit import CEILING_BYTES

RATE_PER_S = 2_000
BURST_S = 0.02
AT_ONCE = 8
LASTING_S = 30.0
LIMIT_S = 3.0
OVERRUN_S = 2.0
LOOK_S = 0.05
DEADLINE_S = 180.0
SETTLED_S = 1.0
STOP_S = 15.0
ABUSER, NEIGHBOUR = "abuser", "neighbour"
ROLES: dict[str, Role] = {"tenant": "observe", "operator": "operate"}
STATEMENTS = (*ENDLESS, *GREEDY)
SUBJECT = subjects.event("agent", "task_completed")
MIB = 1024**2
BLOCK_BYTES = 512
SPILL_MIB = MetricsSection().spill_mb
CEILING_MB = (MetricsSection().memory_mb * MIB + CEILING_BYTES) / 1e6


def event(number: int) -> bytes:
    """The event of a task, every second one of the abuser's own."""
    tenant = (ABUSER, NEIGHBOUR)[number % 2]
    request = owned_id(tenant, f"r{number}")
    return TaskCompleted(
        event_id=f"{number:012d}",
        at_s=time.time(),
        service="agent",
        instance="agent-1",
        host="alpha",
        request_id=request,
        tenant=tenant,
        task_id=f"{request}.1.alpha",
        model="alpha",
        finish_reason="stop",
        prompt_tokens=21,
        generated_tokens=number % 100,
        timings=Timings(total_duration_ns=10**8 + number, eval_duration_ns=9 * 10**7),
    ).to_bytes()


@dataclass
class Seen:
    """What was seen while statements went on: seconds, and bytes."""

    lags_s: list[float] = field(default_factory=list)
    visible_s: list[float] = field(default_factory=list)
    overruns_s: dict[str, float] = field(default_factory=dict)
    ends: Counter[str] = field(default_factory=Counter)
    spill_bytes: int = 0
    tree_bytes: int = 0

    def overrun(self, statement: str, seconds: float) -> None:
        """Keeps the longest of each statement."""
        name = statement[:60]
        self.overruns_s[name] = max(seconds, self.overruns_s.get(name, 0.0))


class Publisher:
    """Publishes events at RATE_PER_S, and knows when each came."""

    def __init__(self, connection: Client) -> None:
        self._connection = connection
        self.sent_s: list[float] = []

    async def run(self) -> None:
        """Until it is cancelled. One that is late catches up."""
        began_s = time.perf_counter()
        while True:
            due = int((time.perf_counter() - began_s) * RATE_PER_S)
            for number in range(len(self.sent_s), due):
                await self._connection.publish(SUBJECT, event(number))
                self.sent_s.append(time.perf_counter())
            await asyncio.sleep(BURST_S)

    def age_s(self, behind: int) -> float:
        """The age of the oldest of the last `behind` events."""
        return time.perf_counter() - self.sent_s[-min(behind, len(self.sent_s))] if behind else 0.0


@asynccontextmanager
async def going_on(*works: Any) -> AsyncIterator[None]:
    """Runs coroutines until the context ends; an error of one is raised then."""
    tasks = [asyncio.ensure_future(work) for work in works]
    try:
        yield
    finally:
        await ended(tasks)
    for task in tasks:
        if not task.cancelled():
            task.result()


async def lagging(connection: Client, publisher: Publisher, seen: Seen) -> None:
    """Looks again and again how far the service is behind."""
    js = connection.jetstream(timeout=DEADLINE_S)
    while True:
        info = await js.consumer_info(subjects.EVENTS_STREAM, subjects.EVENTS_CONSUMER)
        seen.lags_s.append(publisher.age_s((info.num_pending or 0) + (info.num_ack_pending or 0)))
        await asyncio.sleep(LOOK_S)


async def visible(choir: Choir, publisher: Publisher, seen: Seen) -> None:
    """Somebody else asks again and again for the newest of its own rows."""
    while True:
        with contextlib.suppress(ChoirError):
            rows = await choir.sql("SELECT max(event_id) FROM task_completed", timeout_s=DEADLINE_S)
            if (newest := rows.rows[0][0]) is not None:
                seen.visible_s.append(time.perf_counter() - publisher.sent_s[int(newest)])
        await asyncio.sleep(LOOK_S)


async def sizes(service: psutil.Process, spill: Path, seen: Seen) -> None:
    """Looks again and again what lies on the disk, and what the service and its processes have."""
    while True:
        taken = await asyncio.to_thread(_on_disk, spill), await asyncio.to_thread(_in_memory, service)
        seen.spill_bytes, seen.tree_bytes = max(seen.spill_bytes, taken[0]), max(seen.tree_bytes, taken[1])
        await asyncio.sleep(LOOK_S)


def _on_disk(folder: Path) -> int:
    taken = 0
    for within, _, names in os.walk(folder):  # what goes meanwhile is left out
        for name in names:
            with contextlib.suppress(OSError):
                taken += Path(within, name).stat().st_blocks * BLOCK_BYTES
    return taken


def _in_memory(service: psutil.Process) -> int:
    taken = 0
    for process in (service, *service.children(recursive=True)):
        with contextlib.suppress(psutil.Error):
            taken += process.memory_info().rss
    return taken


async def abuse(choir: Choir, first: int, until_s: float, seen: Seen) -> None:
    """One statement after another, from the `first` on."""
    for statement in islice(cycle(STATEMENTS), first, None):
        began_s = time.perf_counter()
        if began_s > until_s:
            return
        end = "answered"
        try:
            await choir.sql(statement, timeout_s=LIMIT_S)
        except ChoirError as error:
            end = error.code
        seen.ends[end] += 1
        seen.overrun(statement, time.perf_counter() - began_s - LIMIT_S)


async def measure_role(mesh: BenchMesh, folder: Path, role: Role) -> dict[str, Any]:
    """The figures of one role of the abuser, on a service of its own."""
    await seed_tenants(
        mesh.connection, [Tenant(name=ABUSER, role=role), Tenant(name=NEIGHBOUR, role="observe")]
    )
    service = start_service(mesh, folder)
    publisher, quiet, beside = Publisher(mesh.connection), Seen(), Seen()
    async with Choir(mesh.url) as choir, Choir(mesh.url) as other:
        await _ready(other.as_tenant(NEIGHBOUR))
        abuser, neighbour = choir.as_tenant(ABUSER), other.as_tenant(NEIGHBOUR)
        async with going_on(publisher.run()):
            await asyncio.sleep(SETTLED_S)
            for seen in (quiet, beside):
                async with going_on(
                    lagging(mesh.connection, publisher, seen),
                    visible(neighbour, publisher, seen),
                    sizes(service, folder / SPILL_FOLDER, seen),
                ):
                    until_s = time.perf_counter() + LASTING_S
                    clients = AT_ONCE if seen is beside else 0
                    await asyncio.gather(*(abuse(abuser, first, until_s, seen) for first in range(clients)))
                    await asyncio.sleep(until_s - time.perf_counter())
        await asyncio.sleep(SETTLED_S)
        before_s = cpu_seconds(service.pid)
        await asyncio.sleep(SETTLED_S)
        goes_on_s = cpu_seconds(service.pid) - before_s
        alive = service.is_running() and mesh.processes[-1].poll() is None
        peak = peak_mb(service)
        async with going_on(publisher.run()):
            until_s = time.perf_counter() + SETTLED_S
            last = [asyncio.ensure_future(abuse(abuser, first, until_s, Seen())) for first in range(AT_ONCE)]
            await asyncio.sleep(2 * SETTLED_S)
            stop_s = await stopped_s(mesh)
            await asyncio.gather(*last)
    return {
        "events": len(publisher.sent_s),
        "lag_s": _distribution(beside.lags_s),
        "lag_quiet_s": _distribution(quiet.lags_s),
        "visible_s": _distribution(beside.visible_s),
        "visible_quiet_s": _distribution(quiet.visible_s),
        "overrun_s": beside.overruns_s,
        "ends": dict(beside.ends),
        "spill_mib": beside.spill_bytes / MIB,
        "peak_mb": peak,
        "with_its_processes_mb": beside.tree_bytes / 1e6,
        "goes_on_cpu_s": goes_on_s,
        "ended": not alive,
        "stop_s": stop_s,
        "exit_code": mesh.processes[-1].returncode,
    }


async def stopped_s(mesh: BenchMesh) -> float:
    """Seconds from SIGTERM to the end of the service."""
    process, began_s = mesh.processes[-1], time.perf_counter()
    process.terminate()
    await asyncio.to_thread(process.wait, DEADLINE_S)
    return time.perf_counter() - began_s


async def _ready(choir: Choir) -> None:
    async with asyncio.timeout(DEADLINE_S):
        while True:
            with contextlib.suppress(ChoirError):
                await choir.sql("SELECT 1", timeout_s=DEADLINE_S)
                return
            await asyncio.sleep(LOOK_S)


def _distribution(values: list[float]) -> dict[str, float]:
    if not values:
        return {"count": 0}
    return {"count": len(values), "p50": statistics.median(values), "max": max(values)}


async def measure(folder: Path) -> dict[str, Any]:
    """Both roles, each with a broker of its own."""
    found = {}
    for name, role in ROLES.items():
        async with bench_mesh(folder / name / "broker", ()) as mesh:
            found[name] = await measure_role(mesh, folder / name / "metrics", role)
    return found


def run() -> Report:
    """Measures on this machine's disk, in a folder that is gone afterwards. It needs 3 GB there."""
    with tempfile.TemporaryDirectory() as folder:
        raw = uvloop.run(measure(Path(folder)))
    return Report(
        bench="sql-beside",
        raw=raw,
        targets=tuple(
            target
            for name, seen in raw.items()
            for target in (
                at_most(f"{name}: lag of the ingest in s, the longest", seen["lag_s"]["max"], 1.0),
                at_most(
                    f"{name}: s beyond its limit, the longest", max(seen["overrun_s"].values()), OVERRUN_S
                ),
                at_most(f"{name}: MiB of spill, the most", seen["spill_mib"], SPILL_MIB),
                at_most(f"{name}: MB of the service, the most", seen["peak_mb"], CEILING_MB),
                at_most(f"{name}: CPU s in a second after all was over", seen["goes_on_cpu_s"], 0.2),
                at_most(f"{name}: s from SIGTERM to the end", seen["stop_s"], STOP_S),
            )
        ),
        notes=(
            f"{AT_ONCE} clients at once for {LASTING_S:g} s, each statement with a limit of {LIMIT_S:g} s, "
            f"beside {RATE_PER_S} events a second; before that as long without statements (quiet)",
        ),
    )
