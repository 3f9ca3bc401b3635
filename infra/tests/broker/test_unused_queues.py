"""Queues of workers that were removed go, on a real broker; what is queued in one keeps it."""

from __future__ import annotations

import asyncio
from collections.abc import Collection

import pytest
from nats.aio.client import Client
from nats.js.errors import NotFoundError

from infra.broker.provision import ensure_worker_model, provision
from infra.broker.streams import worker_queues
from infra.broker.streams.definitions import consumer_config
from infra.broker.streams.unused_queues import UNUSED_S, UnusedQueues
from infra.broker.streams.worker_queues import WorkerQueues
from infra.testing.mesh import eventually
from schemas import subjects
from schemas.broker import catalog
from schemas.nodes.workers import Worker
from schemas.tests.golden.store_samples import MODEL as MODEL_OF_THE_STORE
from services.chassis.process.cancelling import ended

MODEL = "org/mac-model:1b"
QUEUE = subjects.generate_consumer("interactive", MODEL)
COMMAND = subjects.generate("interactive", MODEL, "r1")
WORKER = Worker(id="mac", type="ollama", host="127.0.0.1", port=1, model=MODEL)


async def has_queue(client: Client, name: str = QUEUE) -> bool:
    try:
        await client.jetstream().consumer_info(subjects.COMMANDS_STREAM, name)
    except NotFoundError:
        return False
    return True


async def is_queued(client: Client) -> bool:
    """The broker counts for a consumer a moment after it has stored."""
    info = await client.jetstream().consumer_info(subjects.COMMANDS_STREAM, QUEUE)
    return bool(info.num_pending == 1)


async def test_a_queue_that_was_empty_and_unused_for_an_hour_goes(connection: Client) -> None:
    js = connection.jetstream()
    await ensure_worker_model(js, MODEL)
    unused = UnusedQueues(js, set)
    assert await unused.look(0) == []
    assert await unused.look(UNUSED_S - 1) == [] and await has_queue(connection)
    assert await unused.look(UNUSED_S) == [MODEL]
    for spec in catalog.model_consumers(MODEL):
        assert not await has_queue(connection, spec.name)


async def test_what_is_queued_or_in_work_keeps_its_queue_and_the_hour_begins_anew_after_it(
    connection: Client,
) -> None:
    js = connection.jetstream()
    await ensure_worker_model(js, MODEL)
    unused = UnusedQueues(js, set)
    await unused.look(0)
    await js.publish(COMMAND, b"queued")
    await eventually(lambda: is_queued(connection))
    assert await unused.look(2 * UNUSED_S) == []
    pulling = await js.pull_subscribe_bind(QUEUE, subjects.COMMANDS_STREAM)
    (msg,) = await pulling.fetch(1, timeout=60)
    assert msg.data == b"queued"
    assert await unused.look(4 * UNUSED_S) == [], "it is not acknowledged yet"
    await msg.ack_sync()
    assert await unused.look(5 * UNUSED_S) == []
    assert await unused.look(6 * UNUSED_S) == [MODEL]


async def test_use_between_two_looks_is_use(connection: Client) -> None:
    js = connection.jetstream()
    await ensure_worker_model(js, MODEL)
    unused = UnusedQueues(js, set)
    await unused.look(0)
    await js.publish(COMMAND, b"quick")
    (msg,) = await (await js.pull_subscribe_bind(QUEUE, subjects.COMMANDS_STREAM)).fetch(1, timeout=60)
    await msg.ack_sync()
    assert await unused.look(UNUSED_S) == []
    assert await has_queue(connection)


async def test_a_command_that_comes_without_a_queue_is_delivered_by_the_one_that_is_made_again(
    connection: Client,
) -> None:
    js = connection.jetstream()
    await ensure_worker_model(js, MODEL)
    unused = UnusedQueues(js, set)
    await unused.look(0)
    await unused.look(UNUSED_S)
    await js.publish(COMMAND, b"late")
    await ensure_worker_model(js, MODEL)
    (msg,) = await (await js.pull_subscribe_bind(QUEUE, subjects.COMMANDS_STREAM)).fetch(1, timeout=60)
    assert msg.data == b"late"


async def test_queues_that_are_in_use_or_were_made_for_models_of_agents_stay(connection: Client) -> None:
    js = connection.jetstream()
    await provision(connection, ["own"])
    await ensure_worker_model(js, "own")
    await ensure_worker_model(js, MODEL)
    unused = UnusedQueues(js, lambda: {MODEL})
    await unused.look(0)
    assert await unused.look(2 * UNUSED_S) == []
    assert await has_queue(connection)
    assert await has_queue(connection, subjects.generate_consumer("interactive", "own"))


async def test_a_queue_that_is_updated_is_still_known_as_a_workers(connection: Client) -> None:
    js = connection.jetstream()
    await ensure_worker_model(js, MODEL)
    spec = catalog.model_consumers(MODEL)[0]
    info = await js.consumer_info(spec.stream, spec.name)
    await js.add_consumer(
        spec.stream, consumer_config(spec).evolve(ack_wait=99, metadata=info.config.metadata)
    )
    await provision(connection, [MODEL])
    unused = UnusedQueues(js, set)
    await unused.look(0)
    assert await unused.look(UNUSED_S) == [MODEL]


async def test_a_worker_s_queue_goes_after_it_and_comes_back_with_it(
    connection: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(worker_queues, "LOOK_INTERVAL_S", 0.05)
    monkeypatch.setattr("infra.broker.streams.unused_queues.UNUSED_S", 0.1)
    bucket = await connection.jetstream().key_value(subjects.WORKERS_BUCKET)
    said: list[str] = []

    async def comes_and_goes(times: int) -> None:
        await bucket.put(subjects.worker_key("mac"), WORKER.to_bytes())
        await eventually(lambda: has_queue(connection))
        await bucket.delete(subjects.worker_key("mac"))
        await eventually(lambda: gone(connection))
        await eventually(lambda: len(said) == times)

    keeping = asyncio.create_task(WorkerQueues(connection, set, said.append).keep())
    try:
        await comes_and_goes(1)
        await comes_and_goes(2)
    finally:
        await ended([keeping])
    assert said == [f"the queue for {MODEL} is removed: nobody has it any more"] * 2


async def gone(client: Client) -> bool:
    return not await has_queue(client)


async def test_a_broker_that_cannot_say_who_is_registered_is_asked_again(
    connection: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Given a broker without the bucket of workers
    monkeypatch.setattr(worker_queues, "RETRY_S", 0.05)
    await connection.jetstream().delete_stream(subjects.bucket_stream(subjects.WORKERS_BUCKET))
    said: list[str] = []
    keeping = asyncio.create_task(WorkerQueues(connection, set, said.append).keep())
    try:
        await eventually(lambda: bool(said))
        assert "workers cannot be looked up yet" in said[0]
        # When it has one, with a worker in it
        await provision(connection, ())
        workers = await connection.jetstream().key_value(subjects.WORKERS_BUCKET)
        await workers.put(subjects.worker_key("mac"), WORKER.to_bytes())
        # Then the worker's model can be asked
        await eventually(lambda: has_queue(connection))
    finally:
        await ended([keeping])


async def test_a_model_of_the_store_that_an_agent_would_load_has_a_queue_and_no_other_has(
    connection: Client,
) -> None:
    kept = MODEL_OF_THE_STORE.model_copy(update={"name": "kept"})
    bucket = await connection.jetstream().key_value(subjects.STORED_MODELS_BUCKET)
    await bucket.put(subjects.stored_model_key("kept"), kept.to_bytes())
    let: list[set[str]] = []

    async def know(models: Collection[str]) -> None:
        let.append(set(models))

    queues = WorkerQueues(connection, set, lambda _: None, know, lambda: {MODEL, "kept"})
    keeping = asyncio.create_task(queues.keep())
    try:
        name = subjects.generate_consumer("interactive", "kept")
        await eventually(lambda: has_queue(connection, name))
    finally:
        await ended([keeping])
    # Agents may take its work before there is a queue; what only a lease names stays closed
    assert let[-1] == {"kept"}
    assert not await has_queue(connection)
