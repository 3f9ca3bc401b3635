"""What the tests of the event database stand on: a service on a folder, events to fill a stream with, SQL."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from nats.aio.client import Client

from infra.testing.plugin import ServiceProcess, SpawnService
from schemas import subjects
from schemas.errors import DeadlineExceeded, ErrorBody, MeshUnreachable
from schemas.events import Event, TaskCompleted
from schemas.replies import Timings
from services.client.client import Choir

SHARED: dict[str, Any] = {"service": "agent", "instance": "agent-1", "host": "alpha"}


def task_completed(number: int, **fields: Any) -> TaskCompleted:
    """The event of a task; `number` makes it another one."""
    request_id = fields.pop("request_id", f"r{number}")
    defaults: dict[str, Any] = {
        "event_id": f"event-{number}",
        "at_s": 1_750_000_000 + number / 100,
        "request_id": request_id,
        "task_id": f"{request_id}.1.alpha",
        "model": "alpha",
        "finish_reason": "stop",
        "prompt_tokens": 12,
        "generated_tokens": number % 50,
        "timings": Timings(total_duration_ns=number, eval_duration_ns=number // 2),
    }
    return TaskCompleted(**(SHARED | defaults | fields))


async def fill(client: Client, events: Iterable[Event]) -> int:
    """Publishes events as services do, and returns when the stream has them; how many they were."""
    count = 0
    for event in events:
        await client.publish(subjects.event(event.service, event.kind), event.to_bytes())
        count += 1
    await client.flush()
    await client.flush()
    return count


def spawn_metrics(spawn: SpawnService, folder: Path, url: str, **settings: Any) -> ServiceProcess:
    """A metrics service on `folder`, with settings of section [metrics]."""
    env = {f"CHOIR_METRICS__{name.upper()}": str(value) for name, value in settings.items()}
    return spawn("metrics", "metrics-1", url=url, env={"CHOIR_METRICS__FOLDER": str(folder), **env})


@asynccontextmanager
async def asking(url: str) -> AsyncIterator[Choir]:
    """A client that asks with SQL."""
    async with Choir(url) as choir:
        yield choir


async def value(choir: Choir, statement: str) -> Any:
    """The one value that a statement gives."""
    rows = await choir.sql(statement, timeout_s=120)
    return rows.rows[0][0]


async def count_of(choir: Choir, table: str) -> int:
    """How many rows a table has."""
    return int(await value(choir, f"SELECT count(*) FROM {table}"))


async def has(choir: Choir, table: str, count: int) -> bool:
    """Whether a table has so many rows; not while the service is not there yet, or at something else."""
    try:
        return await count_of(choir, table) == count
    except (MeshUnreachable, DeadlineExceeded):
        return False


FAILED = ErrorBody(code="generation_failed", message="the backend has closed the connection")
