"""What waits for each model and what is in work, as the status tells it."""

from __future__ import annotations

import asyncio

import pytest
from nats.aio.client import Client
from nats.aio.msg import Msg

from infra.testing.mesh import DEADLINE_S, eventually
from schemas import subjects
from schemas.replies import ModelQueue, StatusReply
from services.router.endpoints import queues as module
from services.router.endpoints.queues import Queues
from services.router.tenancy.fair_queue import LEAST_WINDOW
from services.router.tests.front import MODELS, Front
from services.router.tests.tenancy.test_fair_queue import held, known

NOTHING = ModelQueue()


async def status(front: Front, tenant: str = subjects.LOCAL_TENANT) -> StatusReply:
    reply = await front.request(subjects.door(tenant, subjects.STATUS))
    return StatusReply.model_validate_json(reply.data)


async def told(front: Front, **queues: ModelQueue) -> None:
    """Returns when the status says that of the models, and of every other one that nothing is queued."""
    wanted = {**dict.fromkeys(MODELS, NOTHING), **queues}

    async def says_so() -> bool:
        return (await status(front)).queues == wanted

    await eventually(says_so)


async def pull(front: Front, priority: subjects.Priority, model: str) -> Msg:
    """Takes the next command of a queue, as an agent does."""
    js, consumer = front.client.jetstream(), subjects.generate_consumer(priority, model)
    pulling = await js.pull_subscribe_bind(consumer, subjects.COMMANDS_STREAM)
    (taken,) = await pulling.fetch(1, timeout=60)
    return taken


async def test_status_tells_of_each_model_what_waits_and_what_is_in_work(front: Front) -> None:
    await told(front)
    for number, priority in enumerate(("interactive", "batch", "interactive")):
        await front.request(
            subjects.SUBMIT, prompt="hi", model="alpha", request_id=f"a{number}", priority=priority
        )
    await front.request(subjects.SUBMIT, prompt="hi", model="beta", request_id="b")
    await told(front, alpha=ModelQueue(waiting=3), beta=ModelQueue(waiting=1))
    taken = await pull(front, "interactive", "alpha")
    await told(front, alpha=ModelQueue(waiting=2, in_work=1), beta=ModelQueue(waiting=1))
    await taken.ack_sync()
    await told(front, alpha=ModelQueue(waiting=2), beta=ModelQueue(waiting=1))


async def test_what_waits_for_a_model_that_nobody_serves_any_more_is_told_too(front: Front) -> None:
    """The queue `delta` is there, and nobody serves that model."""
    subject = subjects.generate("interactive", "delta", "d")
    await front.mesh.storage.enqueue(subject, b"{}", message_id="d")
    await told(front, delta=ModelQueue(waiting=1))


async def test_what_is_held_for_a_queue_waits_in_it(front: Front) -> None:
    await known(front, alice=1)

    async def all_of_it() -> bool:
        queued, waiting = await status(front), await held(front)
        return waiting > 0 and queued.queues.get("alpha", NOTHING).waiting == queued.queued > LEAST_WINDOW

    await eventually(all_of_it)


async def test_a_tenant_that_operates_nothing_is_not_told_how_much_others_have_queued(front: Front) -> None:
    await front.request(subjects.SUBMIT, prompt="hi", model="alpha")
    await told(front, alpha=ModelQueue(waiting=1))
    assert (await status(front, "alice")).queues == {}


async def test_however_many_ask_the_broker_is_asked_once(
    front: Front, connection: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    await told(front)
    for time_s in ("TIMEOUT_S", "LOOK_EVERY_S", "KEPT_S"):  # however slow this host is at the moment
        monkeypatch.setattr(module, time_s, DEADLINE_S)
    asked: list[Msg] = []

    async def note(msg: Msg) -> None:
        asked.append(msg)

    await connection.subscribe(subjects.consumer_list(subjects.COMMANDS_STREAM), cb=note)
    await connection.flush()
    queues = Queues(connection, holds=lambda: False)
    found = await asyncio.gather(*(queues.of_models(MODELS) for _ in range(50)))
    assert found == [dict.fromkeys(MODELS, NOTHING)] * 50
    await connection.flush()
    assert len(asked) == 1


async def test_a_broker_that_does_not_say_leaves_the_rest_of_the_status_as_it_is(connection: Client) -> None:
    queues = Queues(connection, holds=lambda: False)
    await connection.jetstream().delete_stream(subjects.COMMANDS_STREAM)
    assert await queues.of_models(MODELS) == {}
