"""Events into rows: how fast, how soon they can be asked for, and how fast the heaviest queries are.

filled stream   300,000 events lie in the stream; the service starts and stores them. The clock runs from
                the first batch that SQL can see to the last
bare            the same stored bodies, decoded and batch-inserted into a fresh database of the same tables,
                a transaction per batch of the same size, in this process and without a broker. For comparison
                the same rows ready-made as Arrow tables, and as Python values with `executemany`
visible         500 events per second are published one by one while SQL asks for the newest
queries         every shipped query over 10 million task events, answered by the service over NATS; the five
                slowest are held against the target
"""

from __future__ import annotations

import asyncio
import statistics
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
import uvloop
from nats.aio.client import Client

from loadtest.bench.mesh.synthetic_tasks import fill_database
from loadtest.bench.processes import BenchMesh, bench_mesh
from loadtest.bench.report import Report, at_least, at_most
from schemas import subjects
from schemas.errors import ChoirError
from schemas.events import TaskCompleted
from schemas.replies import Timings
from services.client.client import Choir
from services.client.queries.query_file import SHIPPED, read
from services.metrics.ingest.decoding import Decoder
from services.metrics.ingest.position import Position
from services.metrics.ingest.stored_event import StoredEvent
from services.metrics.ingest.writer import Writer
from services.metrics.settings import VIEWS_FOLDER, MetricsSection
from services.metrics.store.database import FILE_NAME, Database
from services.metrics.store.tables import quoted

EVENTS = 300_000
TASKS = 10_000_000
BATCH_ROWS = MetricsSection().batch_rows
MEMORY_MB = MetricsSection().memory_mb
SLOW_ROWS = 2_000
RATE_PER_S = 500
VISIBLE_S = 10.0
HEAVIEST = 5
QUERY_ROUNDS = 3
DEADLINE_S = 120.0
MEGABYTE = 1e6
SUBJECT = subjects.event("agent", "task_completed")
EXAMPLES = {"request_id": "01JZ0CH0RA8W2M6Q0000001000", "since_s": "0"}
"""For parameters without a default."""


def body(number: int, at_s: float) -> bytes:
    """One task's event as it travels."""
    request = f"01JZ0CH0RA8W2M6Q{number // 4:010d}"
    return TaskCompleted(
        event_id=f"BENCH{number:020d}",
        at_s=at_s,
        service="agent",
        instance=f"agent-{number % 8}",
        host="alpha",
        request_id=request,
        task_id=f"{request}.1.model-{number % 4}",
        trace_id=f"{number // 4:032x}",
        span_id=f"{number:016x}",
        model=f"model-{number % 4}",
        finish_reason="stop",
        prompt_tokens=21,
        generated_tokens=number % 100,
        timings=Timings(total_duration_ns=10**8 + number, eval_duration_ns=9 * 10**7),
        tokens_per_s=41.5,
        topology="ensemble",
    ).to_bytes()


def start_service(mesh: BenchMesh, folder: Path) -> psutil.Process:
    """A metrics service on `folder`."""
    mesh.spawn("services.metrics", env={"CHOIR_METRICS__FOLDER": str(folder)})
    return psutil.Process(mesh.processes[-1].pid)


async def stored(choir: Choir) -> int:
    """How many events of the stream are rows; 0 while the service is not there."""
    try:
        rows = await choir.sql("SELECT sequence FROM stream_position")
    except ChoirError:
        return 0
    return int(rows.rows[0][0]) if rows.rows else 0


async def measure_filled(mesh: BenchMesh, folder: Path) -> dict[str, float]:
    """Events per second from a filled stream, from the first batch that can be seen to the last."""
    for number in range(EVENTS):
        await mesh.connection.publish(SUBJECT, body(number, 1_750_000_000 + number / 1_000))
    await mesh.connection.flush()
    await _kept(mesh.connection, EVENTS)
    service = start_service(mesh, folder)
    async with Choir(mesh.url) as choir, asyncio.timeout(DEADLINE_S):
        while not (first := await stored(choir)):  # noqa: ASYNC110  (the service is asked)
            await asyncio.sleep(0.01)
        started = time.perf_counter()
        while await stored(choir) < EVENTS:  # noqa: ASYNC110
            await asyncio.sleep(0.05)
        rate = (EVENTS - first) / (time.perf_counter() - started)
        visible = await measure_visible(mesh.connection, choir)
    return {"events_per_s": rate, **visible, "ingest_peak_mb": peak_mb(service)}


async def measure_visible(connection: Client, choir: Choir) -> dict[str, float]:
    """Seconds from publishing to being a row, at 500 events per second for ten seconds."""
    published: dict[str, float] = {}
    delays: list[float] = []

    async def publish() -> None:
        started = time.perf_counter()
        for number in range(int(VISIBLE_S * RATE_PER_S)):
            await asyncio.sleep(started + number / RATE_PER_S - time.perf_counter())
            await connection.publish(SUBJECT, body(10**9 + number, time.time()))
            published[f"BENCH{10**9 + number:020d}"] = time.perf_counter()

    publishing = asyncio.create_task(publish())
    newest = "SELECT event_id FROM task_completed WHERE event_id > $known ORDER BY event_id"
    known = f"BENCH{10**9 - 1:020d}"
    async with asyncio.timeout(DEADLINE_S):
        while len(delays) < VISIBLE_S * RATE_PER_S:
            rows = (await choir.sql(newest, {"known": known})).rows
            now = time.perf_counter()
            delays += [now - published[row[0]] for row in rows]
            known = rows[-1][0] if rows else known
            await asyncio.sleep(0.02)
    await publishing
    return {"visible_p50_s": statistics.median(delays), "visible_max_s": max(delays)}


async def _kept(connection: Client, count: int) -> None:
    """Returns when the stream holds so many events."""
    async with asyncio.timeout(DEADLINE_S):
        js = connection.jetstream()
        while (await js.stream_info(subjects.EVENTS_STREAM)).state.messages < count:  # noqa: ASYNC110
            await asyncio.sleep(0.1)


def peak_mb(process: psutil.Process) -> float:
    """The most memory that a process has held, in megabytes; what it holds now where that is not known."""
    status = Path(f"/proc/{process.pid}/status")
    lines = status.read_text().splitlines() if status.is_file() else []
    peaks = [int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM")]
    return (peaks[0] if peaks else process.memory_info().rss) / MEGABYTE


def measure_bare(folder: Path) -> dict[str, float]:
    """Events per second of batch inserts without a broker."""
    batches = [
        [
            StoredEvent(number, 1_750_000_000_000_000 + number, SUBJECT, body(number, 1_750_000_000.0))
            for number in range(first + 1, first + BATCH_ROWS + 1)
        ]
        for first in range(0, EVENTS // 3, BATCH_ROWS)
    ]
    count = sum(map(len, batches))
    with timed(folder / "decoded") as (writer, rates):
        position = Position()
        for batch in batches:
            position = writer.write(batch, position)
    decoded = count / rates[0]
    tables = [Decoder().decode(batch, 0).tables["task_completed"] for batch in batches]
    with timed(folder / "arrow") as (writer, rates), writer.database.cursor() as cursor:
        for table in tables:
            cursor.execute("BEGIN")
            cursor.register("batch", table)
            cursor.execute("INSERT INTO task_completed BY NAME SELECT * FROM batch")
            cursor.execute("COMMIT")
    arrow = count / rates[0]
    values = [tuple(row.values()) for row in tables[0].slice(0, SLOW_ROWS).to_pylist()]
    names, marks = ", ".join(tables[0].column_names), ", ".join("?" * len(values[0]))
    with timed(folder / "executemany") as (writer, rates), writer.database.cursor() as cursor:
        cursor.execute("BEGIN")
        cursor.executemany(f"INSERT INTO task_completed ({quoted_names(names)}) VALUES ({marks})", values)
        cursor.execute("COMMIT")
    return {"decoded": decoded, "arrow_tables": arrow, "executemany": len(values) / rates[0]}


def quoted_names(names: str) -> str:
    """Column names as SQL takes them."""
    return ", ".join(quoted(name) for name in names.split(", "))


@contextmanager
def timed(folder: Path) -> Iterator[tuple[Writer, list[float]]]:
    """A writer of a fresh database; when the context ends, the list has the seconds that it was open."""
    database = Database(folder, VIEWS_FOLDER, MEMORY_MB)
    writer = Writer(database)
    writer.open()
    seconds: list[float] = []
    started = time.perf_counter()
    yield writer, seconds
    seconds.append(time.perf_counter() - started)
    database.close()


async def measure_queries(mesh: BenchMesh, folder: Path) -> dict[str, Any]:
    """Seconds of every shipped query over 10 million tasks, the best of three rounds, and the memory."""
    await asyncio.to_thread(fill_database, folder / FILE_NAME, TASKS)
    service = start_service(mesh, folder)
    seconds: dict[str, float] = {}
    async with Choir(mesh.url) as choir:
        await _ready(choir)
        for path in SHIPPED.values():
            query = read(path)
            given = {p.name: EXAMPLES.get(p.name, "") for p in query.parameters if p.default is None}
            taken = []
            for _ in range(QUERY_ROUNDS):
                started = time.perf_counter()
                await choir.sql(query.statement, query.values(given), timeout_s=30)
                taken.append(time.perf_counter() - started)
            seconds[path.stem] = min(taken)
    heaviest = dict(sorted(seconds.items(), key=lambda item: -item[1])[:HEAVIEST])
    return {"query_s": seconds, "heaviest_s": heaviest, "queries_peak_mb": peak_mb(service)}


async def _ready(choir: Choir) -> None:
    async with asyncio.timeout(DEADLINE_S):
        while True:
            try:
                await choir.sql("SELECT 1")
            except ChoirError:
                await asyncio.sleep(0.2)
            else:
                return


async def measure(folder: Path) -> dict[str, Any]:
    """The measurements that need a mesh, each with a broker and a service of its own."""
    async with bench_mesh(folder / "mesh", ()) as mesh:
        filled = await measure_filled(mesh, folder / "metrics")
    async with bench_mesh(folder / "mesh-2", ()) as mesh:
        queries = await measure_queries(mesh, folder / "large")
    return {**filled, **queries}


def run() -> Report:
    """Measures on this machine's disk, in a folder that is gone afterwards. It needs 2 GB there."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        bare = measure_bare(folder / "bare")
        found = uvloop.run(measure(folder))
    ratio = found["events_per_s"] / bare["decoded"]
    memory = max(found["ingest_peak_mb"], found["queries_peak_mb"])
    return Report(
        bench="ingest",
        raw={**found, "bare_events_per_s": bare, "events": EVENTS, "tasks": TASKS},
        targets=(
            at_least("events per second from a filled stream", found["events_per_s"], 30_000),
            at_least("of a bare batch insert of the same stored bodies", ratio, 0.5),
            at_most(
                "seconds until an event is visible at 500 events per second, the slowest",
                found["visible_max_s"],
                1.0,
            ),
            *(
                at_most(f"seconds of {query} over 10 million tasks", s, 1.0)
                for query, s in found["heaviest_s"].items()
            ),
            at_most("metrics service, peak MB", memory, 500.0),
        ),
        notes=(
            "bare decoded: the service's own decoder and batch insert, no broker; arrow_tables: columns "
            "that are ready before the clock starts; executemany: Python values, a row at a time",
        ),
    )
