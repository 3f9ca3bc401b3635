"""The work loop on a real broker, with a worker that does what the test says."""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from functools import partial
from itertools import count, pairwise
from typing import Any

import nats
import pytest
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.js.api import AckPolicy, ConsumerConfig

from infra.broker.broker import Broker
from infra.testing.broker.cable import mesh_on_a_cable
from infra.testing.mesh import (
    bodies,
    enqueue,
    events,
    eventually,
    generate,
    in_time,
    open_mesh,
    queue_is_empty,
    queued,
)
from infra.testing.plugin import connect
from schemas import subjects
from schemas.commands import Generate
from schemas.errors import BrokerUnavailable, ChoirError, GenerationFailed, Overloaded
from schemas.events import MessageDied, TaskRetried
from services.chassis.context import ServiceContext
from services.chassis.identity import Identity
from services.chassis.nats.connection import ConnectionEvents, connection_options
from services.chassis.settings import MeshSection
from services.chassis.work import loop as work_loop
from services.chassis.work import processing
from services.chassis.work.attempts import Past, past
from services.chassis.work.delivery import Delivery, Retry
from services.chassis.work.loop import WorkLoop

ACK_WAIT_S = 1.5
HEARTBEAT_S = 0.1

Handle = Callable[[Generate, Delivery], Awaitable[None]]


class CommandHandler:
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

    async def on_failure(self, command: Generate, error: ChoirError) -> None:
        self.given_up[command.request_id] = error

    async def on_unreadable(self, request_id: str, error: ChoirError) -> None:
        self.refused[request_id] = error


async def hang(_command: Generate, _delivery: Delivery) -> None:
    await asyncio.Event().wait()


def failing(error: Exception) -> Handle:
    async def fail(_command: Generate, _delivery: Delivery) -> None:
        raise error

    return fail


def new_loop(
    mesh: ServiceContext, worker: CommandHandler, slots: int = 4, model: str = "alpha"
) -> WorkLoop[Generate]:
    consumers = [subjects.generate_consumer(priority, model) for priority in subjects.PRIORITIES]
    return WorkLoop(mesh, Generate, subjects.COMMANDS_STREAM, consumers, slots, worker)


@asynccontextmanager
async def working(
    mesh: ServiceContext, worker: CommandHandler, slots: int = 4, model: str = "alpha"
) -> AsyncIterator[WorkLoop[Generate]]:
    """A loop that works for as long as the context is open."""
    loop = new_loop(mesh, worker, slots, model)
    await loop.start()
    try:
        yield loop
    finally:
        await loop.stop()


async def impatient_model(client: Client, model: str, ack_wait_s: float = ACK_WAIT_S) -> None:
    """Queues whose commands come again soon if nobody says that they are in work."""
    for priority in subjects.PRIORITIES:
        await client.jetstream().add_consumer(
            subjects.COMMANDS_STREAM,
            ConsumerConfig(
                durable_name=subjects.generate_consumer(priority, model),
                filter_subject=subjects.all_generates(priority, model),
                ack_policy=AckPolicy.EXPLICIT,
                ack_wait=ack_wait_s,
            ),
        )


async def deliver_in_vain(client: Client, times: int, model: str = "alpha") -> None:
    """Take the next command as often as an agent that dies each time would."""
    consumer = subjects.generate_consumer("interactive", model)
    taker = await client.jetstream().pull_subscribe_bind(consumer, subjects.COMMANDS_STREAM)
    for _ in range(times):
        (message,) = await taker.fetch(1, timeout=60)
        await message.nak()
    await client.flush()
    await taker.unsubscribe()


async def test_never_more_commands_at_once_than_there_are_slots(connection: Client) -> None:
    mesh = open_mesh(connection)
    running, most, full = 0, 0, asyncio.Event()

    async def be_one_of_them(_command: Generate, _delivery: Delivery) -> None:
        nonlocal running, most
        running += 1
        most = max(most, running)
        if running == 3:
            full.set()
        await full.wait()
        for _ in range(3):
            await connection.flush()  # time for a fourth one to come
        running -= 1

    worker = CommandHandler(be_one_of_them)
    for i in range(12):
        await enqueue(mesh, generate(f"r{i}", priority="batch" if i % 3 == 0 else "interactive"))
    async with working(mesh, worker, slots=3):
        await eventually(lambda: queue_is_empty(connection))

    assert most == 3
    assert sorted(worker.handled) == sorted(f"r{i}" for i in range(12))


async def test_interactive_commands_go_before_batch_work_that_came_earlier(
    connection: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(work_loop, "BACKGROUND_DELAY_S", 3600.0)  # no answer of a slow broker is so late
    mesh = open_mesh(connection)
    for i in range(3):
        await enqueue(mesh, generate(f"batch-{i}", priority="batch"))
    for i in range(3):
        await enqueue(mesh, generate(f"interactive-{i}"))
    worker = CommandHandler()
    async with working(mesh, worker, slots=1) as loop:
        await eventually(lambda: len(worker.handled) == 3)
        # When the delay is over after the last of them
        monkeypatch.setattr(work_loop, "BACKGROUND_DELAY_S", 0.0)
        loop._start_refill_behind()
        await eventually(lambda: queue_is_empty(connection))
    assert worker.handled == [f"{kind}-{i}" for kind in ("interactive", "batch") for i in range(3)]


async def test_batch_work_has_its_turn_under_an_interactive_load_that_never_ends(
    connection: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every interactive command is followed by another, until the batch work is done."""
    monkeypatch.setattr(work_loop, "BACKGROUND_DELAY_S", 3600.0)
    mesh = open_mesh(connection)
    batch = [f"batch-{i}" for i in range(3)]
    for request_id in batch:
        await enqueue(mesh, generate(request_id, priority="batch"))

    async def follow(command: Generate, _delivery: Delivery) -> None:
        if command.priority == "interactive" and not set(batch) <= set(worker.handled):
            if loop._in_a_row >= work_loop.FIRST_IN_A_ROW:
                await eventually(lambda: loop._held)  # what its turn has brought, however slowly
            await enqueue(mesh, generate(f"interactive-{next(numbers)}"))

    numbers, worker = count(), CommandHandler(follow)
    for _ in range(4):
        await enqueue(mesh, generate(f"interactive-{next(numbers)}"))
    async with working(mesh, worker, slots=1) as loop:
        await eventually(lambda: queue_is_empty(connection))
    assert [name for name in worker.handled if name in batch] == batch
    turns = [worker.handled.index(name) for name in batch]
    between = [later - earlier - 1 for earlier, later in pairwise([-1, *turns])]
    assert min(between) >= work_loop.FIRST_IN_A_ROW
    assert max(between) <= work_loop.FIRST_IN_A_ROW + 2, "who is held has the next slot"


async def test_a_command_is_acknowledged_only_when_its_handler_has_returned(connection: Client) -> None:
    mesh = open_mesh(connection)
    release = asyncio.Event()

    async def wait(_command: Generate, _delivery: Delivery) -> None:
        await release.wait()

    async with working(mesh, CommandHandler(wait)) as loop:
        await enqueue(mesh, generate("r1"))
        await eventually(lambda: loop.busy == 1)
        consumer = subjects.generate_consumer("interactive", "alpha")
        info = await connection.jetstream().consumer_info(subjects.COMMANDS_STREAM, consumer)
        assert (info.num_ack_pending, await queued(connection)) == (1, 1)
        release.set()
        await eventually(lambda: queue_is_empty(connection))
        assert loop.busy == 0


async def test_a_command_whose_taker_died_is_given_to_another(mesh_url: str, connection: Client) -> None:
    await impatient_model(connection, "epsilon", ack_wait_s=3600.0)
    doomed_connection = await connect(mesh_url)
    doomed = new_loop(open_mesh(doomed_connection), CommandHandler(hang), model="epsilon")
    await doomed.start()
    mesh = open_mesh(connection)
    await enqueue(mesh, generate("r1", "epsilon"))
    await eventually(lambda: doomed.busy == 1)
    await doomed_connection.close()  # no word to the broker: the commands in work are just not done
    await impatient_model(connection, "epsilon")

    worker = CommandHandler()
    async with working(mesh, worker, model="epsilon"):
        await eventually(lambda: queue_is_empty(connection))
    assert (worker.handled[0], worker.deliveries[0]) == ("r1", 2)
    await end(doomed)


async def end(loop: WorkLoop[Generate]) -> None:
    """What is left of a loop whose connection is gone."""
    loop._open = False
    if loop._behind is not None:
        loop._behind.cancel()
    tasks = [*loop._active, *loop._steps, *([loop._heartbeats] if loop._heartbeats else [])]
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


async def test_a_long_command_that_is_reported_as_in_progress_is_not_given_to_another(
    connection: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(work_loop, "HEARTBEAT_S", HEARTBEAT_S)
    monkeypatch.setattr(work_loop, "REFILL_INTERVAL_S", HEARTBEAT_S)
    await impatient_model(connection, "epsilon")
    mesh = open_mesh(connection)
    beats: list[float] = []

    async def on_beat(msg: Msg) -> None:
        if msg.data == Msg.Ack.Progress:
            beats.append(time.monotonic())

    await connection.subscribe("$JS.ACK.>", cb=on_beat)

    async def be_long(_command: Generate, _delivery: Delivery) -> None:
        beats.append(time.monotonic())
        await eventually(lambda: beats[-1] - beats[0] > 1.5 * ACK_WAIT_S)

    numbers = count()

    async def given_once() -> bool:
        """Whether it was, where the broker heard of it all the time: not where this host has stood still."""
        beats.clear()
        first, second = CommandHandler(be_long), CommandHandler()
        async with working(mesh, first, model="epsilon"):
            await enqueue(mesh, generate(f"r{next(numbers)}", "epsilon"))
            await eventually(lambda: beats)
            async with working(mesh, second, model="epsilon"):
                await eventually(lambda: queue_is_empty(connection))
                beats.append(time.monotonic())
        if max(later - earlier for earlier, later in pairwise(beats)) > ACK_WAIT_S / 2:
            return False
        assert first.deliveries + second.deliveries == [1]
        return True

    await eventually(given_once)


async def test_what_fails_for_a_passing_reason_comes_again_after_a_while(connection: Client) -> None:
    mesh = open_mesh(connection)
    at: list[float] = []

    async def fail_first(_command: Generate, delivery: Delivery) -> None:
        at.append(time.monotonic())
        if delivery.count == 1:
            raise Retry(Overloaded("full"), delay_s=0.3)

    worker = CommandHandler(fail_first)
    async with working(mesh, worker):
        await enqueue(mesh, generate("r1"))
        await eventually(lambda: queue_is_empty(connection))
    await mesh.events.flush()

    assert (worker.handled, worker.deliveries, worker.given_up) == (["r1"], [1, 2], {})
    assert at[1] - at[0] > 0.25
    (retried,) = [e for e in await events(connection) if isinstance(e, TaskRetried)]
    assert (retried.request_id, retried.delivery, retried.error.code) == ("r1", 1, "overloaded")


async def test_a_broker_that_was_away_for_a_moment_is_a_passing_reason(connection: Client) -> None:
    mesh = open_mesh(connection)

    async def fail_first(_command: Generate, delivery: Delivery) -> None:
        if delivery.count == 1:
            raise BrokerUnavailable("no answer")

    worker = CommandHandler(fail_first)
    async with working(mesh, worker):
        await enqueue(mesh, generate("r1"))
        await eventually(lambda: queue_is_empty(connection))
    assert (worker.deliveries, worker.given_up) == ([1, 2], {})


async def test_a_typed_error_is_the_outcome_and_is_not_tried_again(connection: Client) -> None:
    mesh = open_mesh(connection)
    worker = CommandHandler(failing(GenerationFailed("no")))
    async with working(mesh, worker):
        await enqueue(mesh, generate("r1"))
        await eventually(lambda: queue_is_empty(connection))
    assert (worker.given_up["r1"].code, worker.deliveries) == ("generation_failed", [1])
    assert await bodies(connection, subjects.DEAD_STREAM) == []


async def test_a_handler_with_a_fault_is_tried_three_times_and_then_its_message_is_kept(
    connection: Client,
) -> None:
    mesh = open_mesh(connection)
    worker = CommandHandler(failing(ZeroDivisionError("secret of the prompt")))
    command = generate("r1")
    async with working(mesh, worker):
        await enqueue(mesh, command)
        await eventually(lambda: queue_is_empty(connection))
    await mesh.events.flush()

    assert worker.deliveries[:3] == [1, 2, 3]  # once more where a busy broker was late to take the outcome
    assert worker.given_up["r1"].code == "internal"
    assert worker.given_up["r1"].message == "ZeroDivisionError in agent"
    assert await bodies(connection, subjects.DEAD_STREAM) == [command.to_bytes()]
    died = [e for e in await events(connection) if isinstance(e, MessageDied)]
    assert [(e.request_id, e.error.code) for e in died] == [("r1", "internal")]


async def test_a_passing_reason_that_does_not_pass_ends_as_its_error(
    connection: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(processing, "MAX_ATTEMPTS", 3)
    mesh = open_mesh(connection)
    worker = CommandHandler(failing(Retry(Overloaded("full"), delay_s=0.01)))
    async with working(mesh, worker):
        await enqueue(mesh, generate("r1"))
        await eventually(lambda: queue_is_empty(connection))
    assert (worker.deliveries, worker.given_up["r1"].code) == ([1, 2, 3], "overloaded")


async def test_a_command_that_kills_its_takers_is_not_tried_for_ever(connection: Client) -> None:
    mesh = open_mesh(connection)
    command = generate("r1")
    await enqueue(mesh, command)
    await deliver_in_vain(connection, processing.MAX_ATTEMPTS)

    worker = CommandHandler()
    async with working(mesh, worker):
        await eventually(lambda: queue_is_empty(connection))
    assert worker.deliveries == []
    assert worker.given_up["r1"].code == "poison_message"
    assert await bodies(connection, subjects.DEAD_STREAM) == [command.to_bytes()]


@pytest.mark.parametrize(
    "body", [b"not JSON", b"{}", b"\xff\xfe", generate("r1").to_bytes()[:-1] + b',"round":"secret"}']
)
async def test_what_cannot_be_read_is_kept_with_the_reason_and_its_request_refused(
    connection: Client, body: bytes
) -> None:
    mesh = open_mesh(connection)
    worker = CommandHandler()
    async with working(mesh, worker):
        subject = subjects.generate("interactive", "alpha", "r9")
        await mesh.storage.enqueue(subject, body, message_id="r9")
        await enqueue(mesh, generate("r1"))
        await eventually(lambda: queue_is_empty(connection))
    await mesh.events.flush()

    assert worker.handled == ["r1"]
    assert {name: error.code for name, error in worker.refused.items()} == {"r9": "poison_message"}
    dead = await connection.jetstream().get_msg(subjects.DEAD_STREAM, seq=1)
    assert (dead.subject, dead.data) == (subjects.dead("agent", "r9"), body)
    assert "not a Generate" in (dead.headers or {})[subjects.REASON_HEADER]
    assert "secret" not in (dead.headers or {})[subjects.REASON_HEADER]
    assert all(b"secret" not in event for event in await bodies(connection, subjects.EVENTS_STREAM))


async def test_a_command_past_its_deadline_is_not_begun(connection: Client) -> None:
    mesh = open_mesh(connection)
    worker = CommandHandler()
    async with working(mesh, worker):
        await enqueue(mesh, generate("r1", timeout_s=-1))
        await eventually(lambda: queue_is_empty(connection))
    assert (worker.given_up["r1"].code, worker.deliveries) == ("deadline_exceeded", [])


async def test_a_handler_is_stopped_at_the_deadline(
    connection: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(processing, "DEADLINE_GRACE_S", 0.0)
    mesh = open_mesh(connection)
    stopped = asyncio.Event()

    async def never_end(_command: Generate, _delivery: Delivery) -> None:
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.Event().wait()
        stopped.set()
        raise asyncio.CancelledError

    worker = CommandHandler(never_end)
    async with working(mesh, worker):

        async def attempt(request_id: str, timeout_s: float) -> ChoirError:
            await enqueue(mesh, generate(request_id, timeout_s=timeout_s))
            await eventually(lambda: queue_is_empty(connection))
            return worker.given_up[request_id]

        error = await in_time(attempt, lambda _error: stopped.is_set(), 1.0)
    assert stopped.is_set()
    assert error.code == "deadline_exceeded"


async def test_a_loop_that_stops_finishes_its_work_and_takes_no_more(connection: Client) -> None:
    mesh = open_mesh(connection)
    release = asyncio.Event()

    async def wait(_command: Generate, _delivery: Delivery) -> None:
        await release.wait()

    worker = CommandHandler(wait)
    loop = new_loop(mesh, worker)
    await loop.start()
    await enqueue(mesh, generate("begun"))
    await eventually(lambda: loop.busy == 1)
    stopping = asyncio.create_task(loop.stop())
    await eventually(lambda: loop._subscriptions[0].in_flight == 0)
    await enqueue(mesh, generate("late"))
    await connection.flush()
    assert not stopping.done()
    release.set()
    await stopping

    async def only_the_late_one_is_queued() -> bool:
        return await queued(connection) == 1

    assert worker.handled == ["begun"]
    await eventually(only_the_late_one_is_queued)


async def test_work_that_does_not_end_in_time_is_given_back_at_once(
    connection: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(work_loop, "DRAIN_PATIENCE_S", 0.05)
    await impatient_model(connection, "epsilon", ack_wait_s=3600.0)
    mesh = open_mesh(connection)
    loop = new_loop(mesh, CommandHandler(hang), model="epsilon")
    await loop.start()
    await enqueue(mesh, generate("r1", "epsilon"))
    await eventually(lambda: loop.busy == 1)
    await loop.stop()
    assert loop.busy == 0

    worker = CommandHandler()
    async with working(mesh, worker, model="epsilon"):
        await eventually(lambda: queue_is_empty(connection))
    assert (worker.handled, worker.deliveries) == (["r1"], [2])


async def test_after_a_crash_of_the_broker_it_asks_again_for_work(
    own_broker: Broker,
) -> None:
    connection_events = ConnectionEvents()
    options = connection_options(MeshSection(url=own_broker.url), Identity("agent", "a"), connection_events)
    client = await nats.connect(**(options | {"reconnect_time_wait": 0.05}))
    mesh = ServiceContext(client, Identity("agent", "a"), connection_events)
    told: list[tuple[str, bool]] = []

    async def note(command: Generate, delivery: Delivery) -> None:
        told.append((command.request_id, delivery.fresh))

    worker = CommandHandler(note)
    async with working(mesh, worker) as loop:
        connection_events.on_reconnect(loop.resume)
        await enqueue(mesh, generate("before"))
        await eventually(lambda: queue_is_empty(client))
        own_broker.kill()
        await eventually(lambda: not client.is_connected)
        await own_broker.restart()
        await eventually(lambda: client.is_connected)
        await enqueue(mesh, generate("after"))
        await eventually(lambda: "after" in worker.handled)
    await client.close()
    assert told[0] == ("before", True) and set(worker.handled) == {"before", "after"}
    # What was acknowledged in the moment before the crash may come again, and is not fresh then
    assert ("before", True) not in told[1:]


async def test_a_command_that_was_there_before_the_loop_does_not_count_as_fresh(connection: Client) -> None:
    mesh = open_mesh(connection)
    fresh: dict[str, bool] = {}

    async def note(command: Generate, delivery: Delivery) -> None:
        fresh[command.request_id] = delivery.fresh

    await enqueue(mesh, generate("old"))
    async with working(mesh, CommandHandler(note)):
        await enqueue(mesh, generate("new"))
        await eventually(lambda: queue_is_empty(connection))
    assert fresh == {"old": False, "new": True}


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
    worker = CommandHandler()

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

    worker = CommandHandler(wait)
    async with working(mesh, worker, slots=2) as loop:
        await enqueue(mesh, generate("i1"))
        await eventually(lambda: loop.busy == 1)
        await eventually(lambda: loop._subscriptions[1].in_flight > 0)
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
    slots = processing.MAX_ATTEMPTS + 4
    mesh = open_mesh(connection)
    release = asyncio.Event()

    async def wait(_command: Generate, _delivery: Delivery) -> None:
        await release.wait()

    worker = CommandHandler(wait)
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


async def test_a_slot_is_free_while_the_outcome_of_its_work_is_being_stored(connection: Client) -> None:
    """One slot, and a disk that is slow: the next command begins, but no third one piles up behind."""
    stored = asyncio.Event()
    begun: list[str] = []

    async def store_slowly(command: Generate, delivery: Delivery) -> None:
        begun.append(command.request_id)
        delivery.work_done()
        await stored.wait()

    mesh, worker = open_mesh(connection), CommandHandler(store_slowly)
    async with working(mesh, worker, slots=1) as loop:
        for number in range(3):
            await enqueue(mesh, generate(f"r{number}"))
        await eventually(lambda: len(begun) == 2)
        assert (loop.busy, loop.free) == (1, 0)
        assert await queued(connection) == 3
        stored.set()
        await eventually(lambda: queue_is_empty(connection))
    assert sorted(worker.handled) == ["r0", "r1", "r2"]


async def test_a_step_that_fails_is_told_and_keeps_no_loop_from_finishing_its_work(
    connection: Client, capsys: pytest.CaptureFixture[str]
) -> None:
    mesh = open_mesh(connection)
    release = asyncio.Event()

    async def wait(_command: Generate, _delivery: Delivery) -> None:
        await release.wait()

    async def fail() -> None:
        await release.wait()
        raise ZeroDivisionError("of the test")

    worker = CommandHandler(wait)
    loop = new_loop(mesh, worker)
    await loop.start()
    await enqueue(mesh, generate("r1"))
    await eventually(lambda: loop.busy == 1)
    loop._spawn(fail())
    stopping = asyncio.create_task(loop.stop())
    await eventually(lambda: loop._subscriptions[0].in_flight == 0)
    release.set()
    await stopping
    assert worker.handled == ["r1"]
    assert "ZeroDivisionError('of the test')" in capsys.readouterr().out


def is_busy(loop: WorkLoop[Generate]) -> bool:
    return loop.busy == 1


async def test_what_stopping_loops_give_back_counts_as_no_attempt(
    connection: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(work_loop, "DRAIN_PATIENCE_S", 0.01)
    mesh = open_mesh(connection)
    await enqueue(mesh, generate("r1"))
    for _ in range(processing.MAX_ATTEMPTS + 1):
        loop = new_loop(mesh, CommandHandler(hang))
        await loop.start()
        await eventually(partial(is_busy, loop))
        await loop.stop()

    worker = CommandHandler()
    async with working(mesh, worker):
        await eventually(lambda: queue_is_empty(connection))
    assert (worker.handled, worker.given_up) == (["r1"], {})
    assert worker.deliveries == [processing.MAX_ATTEMPTS + 2]


async def test_what_fails_for_a_passing_reason_is_tried_as_often_as_ever_and_nobody_has_died_of_it(
    connection: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(processing, "MAX_ATTEMPTS", 5)
    mesh = open_mesh(connection)
    alone: list[bool] = []

    async def fail(_command: Generate, delivery: Delivery) -> None:
        alone.append(delivery.maybe_poison)
        raise Retry(Overloaded("full"), delay_s=0.01)

    worker = CommandHandler(fail)
    async with working(mesh, worker):
        await enqueue(mesh, generate("r1"))
        await eventually(lambda: queue_is_empty(connection))
    assert alone == [False] * 5
    assert worker.given_up["r1"].code == "overloaded"


async def test_a_command_that_was_in_the_hands_of_two_that_died_is_worked_on_alone(
    connection: Client,
) -> None:
    mesh = open_mesh(connection)
    running: set[str] = set()
    beside: dict[str, set[str]] = {}
    others = [f"other-{i}" for i in range(6)]

    async def note_who_is_beside(command: Generate, _delivery: Delivery) -> None:
        running.add(command.request_id)
        for _ in range(5):
            await connection.flush()  # time for others to come
            beside.setdefault(command.request_id, set()).update(running - {command.request_id})
        running.discard(command.request_id)

    await enqueue(mesh, generate("suspect"))
    await deliver_in_vain(connection, 2)
    for request_id in others:
        await enqueue(mesh, generate(request_id))
    worker = CommandHandler(note_who_is_beside)
    async with working(mesh, worker):
        await eventually(lambda: queue_is_empty(connection))
    assert sorted(worker.handled) == sorted(["suspect", *others])
    assert beside["suspect"] == set()
    assert any(beside[request_id] for request_id in others)


async def test_a_command_of_which_a_process_died_that_did_nothing_else_is_not_tried_again(
    mesh_url: str, connection: Client
) -> None:
    """The two that died before may have had other reasons: that alone does not condemn a command."""
    await impatient_model(connection, "epsilon", ack_wait_s=3600.0)
    mesh, command = open_mesh(connection), generate("r1", "epsilon")
    await enqueue(mesh, command)
    await deliver_in_vain(connection, 2, "epsilon")
    doomed_connection = await connect(mesh_url)
    alone = asyncio.Event()

    async def die(_command: Generate, delivery: Delivery) -> None:
        assert delivery.maybe_poison
        alone.set()
        await asyncio.Event().wait()

    doomed = new_loop(open_mesh(doomed_connection), CommandHandler(die), model="epsilon")
    await doomed.start()
    await alone.wait()
    await doomed_connection.close()
    await impatient_model(connection, "epsilon")

    worker = CommandHandler()
    async with working(mesh, worker, model="epsilon"):
        await eventually(lambda: queue_is_empty(connection))
    assert worker.deliveries == []
    assert worker.given_up["r1"].code == "poison_message"
    assert "3 processes have died" in worker.given_up["r1"].message
    assert await bodies(connection, subjects.DEAD_STREAM) == [command.to_bytes()]
    await end(doomed)


async def test_a_loop_that_has_lost_its_connection_has_not_died(mesh_url: str, connection: Client) -> None:
    """However often that happens while a command is in its hands."""
    async with mesh_on_a_cable(mesh_url) as (mesh, way):
        loop = new_loop(mesh, CommandHandler(hang))
        mesh.connection.on_reconnect(loop.resume)
        await loop.start()
        await enqueue(mesh, generate("r1"))
        await eventually(lambda: loop.busy == 1)
        (msg,) = loop._active.values()
        await way.cut_from(mesh)
        await way.mend()
        delivery = replace(Delivery.of(msg, 0), count=2)  # as whoever has it next

        async def excused() -> bool:
            return await past(open_mesh(connection).storage, delivery) == Past(refused=1)

        await eventually(excused)
        loop._open = False
        await end(loop)


# --- commands of a newer version --------------------------------------------------------


class NewerGenerate(Generate):
    """What a Generate may be one day."""

    mood: str = "calm"


async def enqueue_newer(mesh: ServiceContext, request_id: str, timeout_s: float = 60) -> None:
    command = generate(request_id, timeout_s=timeout_s).model_dump(mode="json", exclude_none=True)
    body = json.dumps({**command, "mood": "merry"}).encode()
    await mesh.storage.enqueue(
        subjects.generate("interactive", "alpha", request_id), body, message_id=request_id
    )


def newer_loop(mesh: ServiceContext, worker: CommandHandler) -> WorkLoop[NewerGenerate]:
    consumers = [subjects.generate_consumer(priority, "alpha") for priority in subjects.PRIORITIES]
    return WorkLoop(mesh, NewerGenerate, subjects.COMMANDS_STREAM, consumers, 4, worker)


async def test_a_command_of_a_newer_version_waits_for_an_instance_that_reads_it(
    connection: Client, mesh_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Given an instance that does not know a field, and has given the command back more often than it may fail
    monkeypatch.setattr(processing, "NEWER_DELAY_S", 0.001)
    mesh, old, new = open_mesh(connection), CommandHandler(), CommandHandler()
    async with working(mesh, old):
        await enqueue_newer(mesh, "r1")
        await enqueue(mesh, generate("r2"))

        async def often() -> bool:
            told = [event for event in await events(connection) if isinstance(event, TaskRetried)]
            return len(told) > processing.MAX_ATTEMPTS

        await eventually(often)
        assert old.handled == ["r2"]
    # When it is replaced by one that does
    fresh = await connect(mesh_url)
    upgraded = newer_loop(open_mesh(fresh), new)
    await upgraded.start()
    await eventually(lambda: new.handled == ["r1"])
    await upgraded.stop()
    await fresh.close()
    # Then it was never taken for poison
    assert (old.refused, new.refused, new.given_up) == ({}, {}, {})
    assert await bodies(connection, subjects.DEAD_STREAM) == []


@pytest.mark.parametrize("change", [{"mood": "merry"}, {"schema_version": 2, "messages": "changed"}])
async def test_a_command_of_a_newer_version_that_nobody_reads_in_time_says_what_it_needs(
    connection: Client, change: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(processing, "NEWER_DELAY_S", 0.01)
    mesh, worker = open_mesh(connection), CommandHandler()
    command = generate("r1", timeout_s=1.5).model_dump(mode="json", exclude_none=True)
    body, subject = json.dumps(command | change).encode(), subjects.generate("interactive", "alpha", "r1")
    await mesh.storage.enqueue(subject, body, message_id="r1")
    async with working(mesh, worker):
        await eventually(lambda: worker.refused)
        await eventually(lambda: queue_is_empty(connection))
    error = worker.refused["r1"]
    assert error.code == "unsupported_version"
    assert ("mood" if "mood" in change else "schema_version 2") in error.message
    assert await bodies(connection, subjects.DEAD_STREAM) == []
