"""The tasks of a stage 0: what another has begun, and what nobody waits for any more."""

from __future__ import annotations

from typing import cast

import pytest
from nats.aio.client import Client
from nats.aio.msg import Msg

from infra.testing.made_models.variants import demo_model
from infra.testing.mesh import enqueue, eventually, generate, open_mesh, queue_is_empty, queued
from schemas import subjects
from schemas.commands import Generate
from schemas.errors import BrokerUnavailable
from services.chassis.context import ServiceContext
from services.chassis.nats.streams import Storage
from services.chassis.work.delivery import Delivery
from services.engine.model.gguf.check import check_model_file
from services.shard_stage.intake.intake import Intake
from services.shard_stage.intake.pipeline_generator import PipelineGenerator
from services.shard_stage.tests.helpers.line import plan_of
from services.tasks.generate import Generated, OnPiece

pytestmark = pytest.mark.long

PATIENCE_S = 180.0


class Texts:
    """A generator whose every text is there at once; it counts them."""

    def __init__(self) -> None:
        self.generated: list[str] = []
        self.capabilities: tuple[str, ...] = ()

    async def generate(
        self, command: Generate, _acknowledge: str | None, _on_piece: OnPiece | None
    ) -> Generated:
        self.generated.append(command.request_id)
        return Generated(text="Paris", finish_reason="stop")

    def discard(self, _command: Generate) -> None:
        """Nothing is kept."""

    def displace(self) -> None:
        """Nothing is in work."""


@pytest.fixture
def mesh(connection: Client) -> ServiceContext:
    return open_mesh(connection, "shard_stage", "stage-a")


def intake_on(mesh: ServiceContext, texts: Texts) -> Intake:
    model = demo_model("llama")
    generator = cast(PipelineGenerator, texts)
    return Intake(mesh, plan_of(model, 2), generator, model, check_model_file(model))


async def pulled(mesh: ServiceContext, command: Generate) -> Msg:
    """The next delivery of a command."""
    consumer = subjects.generate_consumer(command.priority, command.model)
    pull = await mesh.client.jetstream().pull_subscribe_bind(consumer, stream=subjects.COMMANDS_STREAM)
    (msg,) = await pull.fetch(1, timeout=PATIENCE_S)
    await pull.unsubscribe()
    return msg


async def test_a_task_that_was_taken_over_is_answered_and_acknowledged(mesh: ServiceContext) -> None:
    command, texts = generate("r1"), Texts()
    await enqueue(mesh, command)
    delivery = await pulled(mesh, command)

    intake_on(mesh, texts).take_over(command, delivery.reply)

    await eventually(lambda: queue_is_empty(mesh.client))
    assert await mesh.storage.last(subjects.RESULTS_STREAM, subjects.result("r1")) is not None


async def test_a_task_that_was_taken_over_goes_back_while_the_broker_cannot_be_asked(
    mesh: ServiceContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As when stage 0 died because the broker is in trouble: that is no outcome of the request."""
    command, intake = generate("r1"), intake_on(mesh, Texts())
    await enqueue(mesh, command)
    delivery = await pulled(mesh, command)

    async def unavailable(*_arguments: object) -> None:
        raise BrokerUnavailable("the broker does not answer")

    with monkeypatch.context() as patched:
        patched.setattr(Storage, "last", unavailable)
        intake.take_over(command, delivery.reply)
        await eventually(lambda: not intake.adopted)

    again = await pulled(mesh, command)
    assert again.metadata.num_delivered == 2
    assert await mesh.storage.last(subjects.RESULTS_STREAM, subjects.result("r1")) is None
    assert await queued(mesh.client) == 1


async def test_a_queued_request_that_was_cancelled_is_not_generated(mesh: ServiceContext) -> None:
    """Its command comes later, and nobody can have worked on it before."""
    texts = Texts()
    intake = intake_on(mesh, texts)
    intake.cancel("r1")
    for request_id in ("r1", "r2"):
        msg = Msg(mesh.client, subject=subjects.generate("interactive", "alpha", request_id))
        await intake.handle(generate(request_id), Delivery(msg, count=1, sequence=1, fresh=True))
    assert texts.generated == ["r2"]


async def test_tasks_that_were_taken_over_are_left_when_the_place_is(mesh: ServiceContext) -> None:
    """They would use a model that is freed."""
    command = generate("r1")
    await enqueue(mesh, command)
    delivery = await pulled(mesh, command)
    texts = Texts()
    intake = intake_on(mesh, texts)
    intake.take_over(command, delivery.reply)
    assert intake.adopted == 1
    await intake.close(drain=False)
    assert intake.adopted == 0
    assert not texts.generated
