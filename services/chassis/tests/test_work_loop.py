"""The work loop on a real broker, with a worker that does what the test says."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager

import nats
import pytest
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.js.api import AckPolicy, ConsumerConfig

from infra.broker import Broker
from infra.testing import connect
from schemas import subjects
from schemas.commands import Generate
from schemas.errors import ChoirError, GenerationFailed, InternalError, NotReady
from services.chassis import work_loop
from services.chassis.connection import ConnectionEvents, connection_options
from services.chassis.identity import Identity
from services.chassis.service import Mesh
from services.chassis.settings import MeshSection
from services.chassis.tests.mesh import (
    bodies,
    enqueue,
    events,
    eventually,
    generate,
    open_mesh,
    queue_is_empty,
    queued,
)
from services.chassis.work_loop import Delivery, Retry, WorkLoop

Handle = Callable[[Generate, Delivery], Awaitable[None]]


class Worker:
    """Remembers what it was given, and does with it what the test says."""

    def __init__(self, handle: Handle | None = None) -> None:
        self._handle = handle
        self.handled: list[str] = []
        self.deliveries: list[int] = []
        self.given_up: dict[str, ChoirError] = {}
        self.refused: dict[str, ChoirError] = {}

    async def handle(self, command: Generate, delivery: Delivery) -> None:
        self.deliveries.append(delivery.count)
        if self._handle is not None:
            await self._handle(command, delivery)
        self.handled.append(command.request_id)

    async def give_up(self, command: Generate, error: ChoirError) -> None:
        self.given_up[command.request_id] = error

    async def refuse(self, request_id: str, error: ChoirError) -> None:
        self.refused[request_id] = error


async def hang(_command: Generate, _delivery: Delivery) -> None:
    await asyncio.Event().wait()


@asynccontextmanager
async def working(
    mesh: Mesh, worker: Worker, slots: int = 4, model: str = "alpha"
) -> AsyncIterator[WorkLoop[Generate]]:
    """A loop that works for as long as the context is open."""
    consumers = [subjects.generate_consumer(priority, model) for priority in subjects.PRIORITIES]
    loop = WorkLoop(mesh, Generate, subjects.COMMANDS_STREAM, consumers, slots, worker)
    await loop.start()
    try:
        yield loop
    finally:
        await loop.stop()


async def test_a_batch_command_that_finds_no_free_slot_is_not_counted_as_a_failure(
    connection: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both queues are asked at once, so at every turn the batch command comes when the slot is taken."""
    monkeypatch.setattr(work_loop, "BACKGROUND_DELAY_S", 0.0)
    mesh = open_mesh(connection)
    requests = [f"interactive-{i}" for i in range(30)]
    for request_id in requests:
        await enqueue(mesh, generate(request_id))
    await enqueue(mesh, generate("batch", priority="batch"))
    worker = Worker()

    async with working(mesh, worker, slots=1):
        await eventually(lambda: queue_is_empty(connection))

    assert worker.given_up == {}
    assert sorted(worker.handled) == sorted([*requests, "batch"])


async def test_a_loop_that_fills_up_while_more_is_on_its_way_goes_on_working(
    connection: Client,
) -> None:
    """The last free slot is taken by a batch command while the demand for more of them stands."""
    mesh = open_mesh(connection)
    release = asyncio.Event()

    async def wait(_command: Generate, _delivery: Delivery) -> None:
        await release.wait()

    worker = Worker(wait)
    async with working(mesh, worker, slots=2) as loop:
        await enqueue(mesh, generate("i1"))
        await eventually(lambda: loop.busy == 1)
        await eventually(lambda: loop._demands[1].outstanding > 0)
        await enqueue(mesh, generate("b1", priority="batch"))
        await eventually(lambda: loop.busy == 2)
        release.set()
        for i in range(10):
            await enqueue(mesh, generate(f"more-{i}", priority="batch" if i % 2 else "interactive"))
        await eventually(lambda: queue_is_empty(connection))
    assert len(worker.handled) == 12


async def test_an_interactive_command_waits_its_turn_while_batch_work_has_all_slots(
    connection: Client,
) -> None:
    """More slots than a command may have attempts, and all of them taken from the other queue."""
    slots = work_loop.MAX_ATTEMPTS + 4
    mesh = open_mesh(connection)
    release = asyncio.Event()

    async def wait(_command: Generate, _delivery: Delivery) -> None:
        await release.wait()

    worker = Worker(wait)
    async with working(mesh, worker, slots=slots) as loop:
        for i in range(slots):
            await enqueue(mesh, generate(f"batch-{i}", priority="batch"))
        await eventually(lambda: loop.busy == slots)
        await enqueue(mesh, generate("interactive"))
        for _ in range(2 * slots):
            await connection.flush()
        release.set()
        await eventually(lambda: queue_is_empty(connection))

    assert worker.given_up == {}
    assert "interactive" in worker.handled
