"""What nobody else ends, the sweeper ends: with an error, once, and off the queue."""

from __future__ import annotations

import asyncio

import pytest
from nats.aio.client import Client
from nats.errors import TimeoutError as NothingCame
from nats.js.api import AckPolicy, ConsumerConfig

from infra.testing.mesh import (
    enqueue,
    events,
    eventually,
    finished,
    gather,
    generate,
    in_time,
    open_mesh,
    queue_is_empty,
    queued,
)
from schemas import subjects
from schemas.commands import Generate
from schemas.errors import ErrorBody, WorkerFailed
from schemas.events import MessageDied
from schemas.replies import Answer, Result
from services.chassis.work.delivery import Delivery, Retry
from services.chassis.work.tests.test_loop import CommandHandler, working
from services.router.retention import sweeper
from services.router.retention.sweeper import Sweeper
from services.router.tests.front import Front


@pytest.fixture(autouse=True)
def no_grace(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sweeper, "GRACE_S", 0.0)


async def result_of(front: Front, request_id: str) -> Result | None:
    stored = await front.mesh.storage.last(subjects.RESULTS_STREAM, subjects.result(request_id))
    return None if stored is None else Result.model_validate_json(stored.data)


async def code_of(front: Front, request_id: str) -> str | None:
    result = await result_of(front, request_id)
    return result.error.code if result and result.error else None


async def test_a_command_that_nobody_took_in_time_gets_its_error_and_leaves_the_queue(front: Front) -> None:
    await enqueue(front.mesh, generate("single", timeout_s=-1))
    await enqueue(front.mesh, gather("ensemble", ("alpha", "beta"), timeout_s=-1))
    await eventually(lambda: queue_is_empty(front.client))
    for request_id, topology in (("single", "single"), ("ensemble", "ensemble")):
        result = await result_of(front, request_id)
        assert result is not None and result.error is not None
        assert (result.error.code, result.topology) == ("deadline_exceeded", topology)


async def test_a_command_that_failed_and_was_not_tried_again_in_time_ends_as_what_it_failed_with(
    front: Front,
) -> None:
    """Its worker died and was taken out of service; nobody else has the model."""
    mesh = front.mesh

    async def fail(_command: Generate, _delivery: Delivery) -> None:
        raise Retry(WorkerFailed("worker mac-1: it hung up"), delay_s=60)

    async def attempt(request_id: str, timeout_s: float) -> list[ErrorBody]:
        member = f"{request_id}-member"
        await enqueue(mesh, generate(request_id, timeout_s=timeout_s))
        await enqueue(mesh, generate(member, timeout_s=timeout_s, routing_slip=("aggregator",)))
        await eventually(lambda: queue_is_empty(front.client))
        result = await result_of(front, request_id)
        stored = await mesh.storage.last(subjects.ANSWERS_STREAM, subjects.answer(member, 1, "alpha"))
        assert result is not None and stored is not None
        errors = (result.error, Answer.model_validate_json(stored.data).error)
        return [error for error in errors if error is not None]

    def tried(errors: list[ErrorBody]) -> bool:
        return all("hung up" in error.message for error in errors)

    async with working(mesh, CommandHandler(fail)):
        errors = await in_time(attempt, tried, 1.0)
    assert len(errors) == 2
    for error in errors:
        assert error.code == "worker_failed"
        assert error.message == "worker mac-1: it hung up; nobody was free in time for this request"


async def test_a_member_s_command_gets_an_error_for_its_answer_and_the_request_none(front: Front) -> None:
    await enqueue(front.mesh, generate("r1", timeout_s=-1, routing_slip=("aggregator",)))
    await eventually(lambda: queue_is_empty(front.client))
    stored = await front.mesh.storage.last(subjects.ANSWERS_STREAM, subjects.answer("r1", 1, "alpha"))
    assert stored is not None
    answer = Answer.model_validate_json(stored.data)
    assert answer.error is not None and answer.error.code == "deadline_exceeded"
    assert await result_of(front, "r1") is None


async def test_what_still_has_time_is_left_alone(front: Front) -> None:
    await enqueue(front.mesh, generate("patient", timeout_s=600))
    await enqueue(front.mesh, generate("over", timeout_s=-1))
    await eventually(lambda: code_of(front, "over"))

    async def one_is_left() -> bool:
        return await queued(front.client) == 1

    await eventually(one_is_left)
    assert await result_of(front, "patient") is None


async def test_a_result_that_is_there_already_is_not_replaced(front: Front) -> None:
    result = finished("r1").to_bytes()
    await front.mesh.storage.store_once(subjects.result("r1"), result)
    await enqueue(front.mesh, generate("r1", timeout_s=-1))
    await eventually(lambda: queue_is_empty(front.client))
    stored = await front.mesh.storage.last(subjects.RESULTS_STREAM, subjects.result("r1"))
    assert stored is not None and stored.data == result


async def test_a_queue_longer_than_one_sweep_is_swept_to_its_end(
    connection: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sweeper, "BATCH", 3)
    mesh = open_mesh(connection, "router")
    for i in range(7):
        await enqueue(mesh, generate(f"r{i}", timeout_s=600 if i < 4 else -1))
    sweeps = Sweeper(mesh, 3600)
    for _ in range(3):
        await sweeps.sweep()
    assert await queued(connection) == 4


async def deliver_as_often_as_allowed(client: Client, model: str) -> None:
    """Queues of a model whose commands are delivered once only, and a taker that gives one back."""
    js = client.jetstream()
    consumer = subjects.generate_consumer("interactive", model)
    await js.add_consumer(
        subjects.COMMANDS_STREAM,
        ConsumerConfig(
            durable_name=consumer,
            filter_subject=subjects.all_generates("interactive", model),
            ack_policy=AckPolicy.EXPLICIT,
            max_deliver=1,
        ),
    )
    taker = await js.pull_subscribe_bind(consumer, subjects.COMMANDS_STREAM)
    (message,) = await taker.fetch(1, timeout=60)
    await message.nak()
    with pytest.raises(NothingCame):
        await taker.fetch(1, timeout=0.5)
    await taker.unsubscribe()


async def test_a_command_that_the_broker_gives_up_gets_its_error_and_a_grave(front: Front) -> None:
    command = generate("r1", "epsilon", timeout_s=600)
    await enqueue(front.mesh, command)
    await deliver_as_often_as_allowed(front.client, "epsilon")
    await eventually(lambda: queue_is_empty(front.client))

    assert await code_of(front, "r1") == "poison_message"
    grave = await front.mesh.storage.last(subjects.DEAD_STREAM, subjects.dead("router", "r1"))
    assert grave is not None and grave.data == command.to_bytes()
    await front.mesh.events.flush()

    async def told() -> bool:
        return any(isinstance(e, MessageDied) and e.request_id == "r1" for e in await events(front.client))

    await eventually(told)


async def test_what_cannot_be_read_and_is_given_up_ends_its_request_too(front: Front) -> None:
    subject = subjects.generate("interactive", "epsilon", "r1")
    await front.mesh.storage.enqueue(subject, b"not a command", message_id="r1")
    await deliver_as_often_as_allowed(front.client, "epsilon")
    await eventually(lambda: queue_is_empty(front.client))
    assert await code_of(front, "r1") == "poison_message"


async def test_what_cannot_be_read_is_left_to_whoever_pulls_it(connection: Client) -> None:
    mesh = open_mesh(connection, "router")
    await mesh.storage.enqueue(
        subjects.generate("interactive", "alpha", "r1"), b"not a command", message_id="r1"
    )
    await enqueue(mesh, generate("r2", timeout_s=-1))
    await Sweeper(mesh, 3600).sweep()
    assert await queued(connection) == 1


async def test_two_sweepers_do_no_harm_to_one_another(connection: Client) -> None:
    mesh = open_mesh(connection, "router")
    for i in range(10):
        await enqueue(mesh, generate(f"r{i}", timeout_s=-1))
    await asyncio.gather(*(Sweeper(mesh, 3600).sweep() for _ in range(2)))
    assert await queued(connection) == 0
