"""What the mesh looks like from outside."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from nats.js import JetStreamContext
from nats.js.api import StreamInfo

from infra.testing.mesh import eventually
from schemas import subjects
from schemas.errors import ModelUnusable, Overloaded
from schemas.nodes.lease import NodeLease, ServedModel
from schemas.replies import ModelQueue, ModelsReply, NodesReply, StatusReply
from services.chassis.identity import Identity
from services.chassis.nats.bucket import Bucket, messages
from services.chassis.registry.lease import Lease, Load
from services.router.endpoints.overview import glances, node_lists, problems, summarize_model
from services.router.tests.front import CONTEXT_TOKENS, MODELS, PREFIX, Front

LITTLE_ROOM = 16
WEIGHTS = "other weights"


def lease(instance: str, *models: ServedModel, broken: bool = False) -> NodeLease:
    problem = ModelUnusable("nothing to serve").body() if broken else None
    return NodeLease(
        service="agent",
        instance=instance,
        host="here",
        pid=1,
        version="0",
        state="broken" if broken else "ready",
        started_at_s=0,
        seen_at_s=0,
        models=models,
        problem=problem,
    )


def served(slots: int, speed: float | None, context: int | None = None) -> ServedModel:
    return ServedModel(
        name="alpha", backend="x", slots=slots, busy=1, tokens_per_s=speed, context_tokens=context
    )


def test_a_model_is_summed_over_its_agents() -> None:
    one, two, three = served(2, 10.0, 4096), served(3, None, 2048), served(1, 5.0)
    summary = summarize_model(
        "alpha", [(lease("a", one), one), (lease("b", two), two), (lease("c", three), three)]
    )
    assert (summary.agents, summary.slots, summary.busy) == (("a", "b", "c"), 6, 3)
    assert (summary.tokens_per_s, summary.context_tokens) == (15.0, 2048)


def test_a_speed_that_nobody_has_measured_is_not_zero() -> None:
    one = served(2, None)
    assert summarize_model("alpha", [(lease("a", one), one)]).tokens_per_s is None


def test_every_complaint_of_a_lease_is_a_line() -> None:
    bad = ServedModel(name="beta", backend="x", slots=0, problem=ModelUnusable("not a GGUF file").body())
    assert problems((lease("a", bad), lease("b", broken=True), lease("c"))) == (
        "b: nothing to serve",
        "a: beta: not a GGUF file",
    )


async def test_nodes_are_all_that_are_alive(front: Front) -> None:
    reply = NodesReply.model_validate_json((await front.request(subjects.NODES)).data)
    assert [(node.service, node.instance) for node in reply.nodes] == [("agent", "agent-1")]


@pytest.mark.parametrize("subject", [subjects.NODES, subjects.MODELS, subjects.STATUS])
async def test_nobody_is_told_what_agents_tell_one_another_of_prompts(front: Front, subject: str) -> None:
    reply = (await front.request(subject)).data
    assert b"alpha" in reply and PREFIX.encode() not in reply


async def test_models_are_all_that_can_be_asked(front: Front) -> None:
    reply = ModelsReply.model_validate_json((await front.request(subjects.MODELS)).data)
    assert tuple(model.name for model in reply.models) == MODELS
    assert {model.context_tokens for model in reply.models} == {CONTEXT_TOKENS}


async def test_status_is_the_mesh_at_a_glance(front: Front) -> None:
    for _ in range(2):
        await front.request(subjects.SUBMIT, prompt="hi", model="alpha")
    await front.request(subjects.SUBMIT, prompt="hi", model="alpha", request_id="done")
    await front.finish("done")
    status = StatusReply.model_validate_json((await front.request(subjects.STATUS)).data)
    assert (status.queued, status.results) == (2, 1)
    assert (status.slots, status.busy) == (6, 1)
    assert (status.models, status.services, status.problems) == (MODELS, {"agent": 1}, ())


async def test_the_broker_is_asked_little_however_many_look_at_once(
    front: Front, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []
    look = JetStreamContext.stream_info

    async def counted(self: JetStreamContext, name: str, **options: Any) -> StreamInfo:
        asked.append(name)
        return await look(self, name, **options)

    monkeypatch.setattr(JetStreamContext, "stream_info", counted)
    replies = await asyncio.gather(*(front.request(subjects.STATUS) for _ in range(200)))
    assert all(StatusReply.model_validate_json(reply.data).models for reply in replies)
    assert asked.count(subjects.RESULTS_STREAM) < 100
    # And whoever looks sees what there was before
    await front.request(subjects.SUBMIT, prompt="hi", model="alpha")
    assert StatusReply.model_validate_json((await front.request(subjects.STATUS)).data).queued == 1


async def test_an_overview_takes_no_fields(front: Front) -> None:
    error = await front.refused(subjects.STATUS, verbose=True)
    assert (error.code, error.field) == ("invalid_request", "verbose")


def test_a_list_of_too_many_nodes_loses_their_texts_first_and_then_says_how_many_it_has_left_out() -> None:
    bad = ServedModel(name="beta", backend="x", slots=0, problem=ModelUnusable("why " * 500).body())
    nodes = tuple(lease(f"agent-{i:03}", bad) for i in range(40))
    whole, plain, half, *_, last = node_lists(nodes)
    assert whole.nodes == nodes
    assert len(plain.nodes) == 40 and len(plain.to_bytes()) < len(whole.to_bytes()) / 3
    assert (len(half.nodes), half.left_out) == (20, 20)
    assert (last.nodes, last.left_out) == ((), 40)


def test_a_glance_at_a_mesh_with_too_many_problems_says_how_many_more_there_are() -> None:
    status = StatusReply(
        services={"agent": 40},
        models=("alpha",),
        slots=1,
        busy=0,
        queued=0,
        results=0,
        problems=tuple(f"agent-{i}: {'why ' * 500}" for i in range(40)),
        queues={"alpha": ModelQueue(waiting=1)},
    )
    whole, cut, no_queues, half, *_, last = glances(status)
    assert whole is status
    assert len(cut.problems) == 40 and len(cut.to_bytes()) < len(whole.to_bytes()) / 3
    assert (cut.queues, no_queues.queues, no_queues.problems) == (status.queues, {}, cut.problems)
    assert len(half.problems) == 21
    assert (last.problems, last.queues) == (("40 more problems: see `choir nodes`",), {})


async def test_a_broker_that_does_not_say_how_much_is_queued_is_named_to_who_may_know(front: Front) -> None:
    await front.client.jetstream().delete_stream(subjects.RESULTS_STREAM)
    error = await front.refused(subjects.STATUS)
    assert (error.code, error.retry_after_s) == ("broker_unavailable", 1.0)
    own = await front.request(subjects.door("alice", subjects.STATUS))
    assert StatusReply.model_validate_json(own.data).queued == 0


async def test_leases_that_fill_their_bucket_stay_and_status_tells_why_nobody_else_comes(
    front: Front,
) -> None:
    js = front.client.jetstream()

    async def told() -> bool:
        reply = await front.request(subjects.STATUS)
        lines = StatusReply.model_validate_json(reply.data).problems
        return any("no room for more leases" in line for line in lines)

    async def instances() -> set[str]:
        reply = await front.request(subjects.NODES)
        return {node.instance for node in NodesReply.model_validate_json(reply.data).nodes}

    # Given a mesh whose leases fill their bucket
    there = await instances()
    assert there and not await told()
    info = await js.stream_info(subjects.bucket_stream(subjects.NODES_BUCKET))
    most_bytes = info.config.max_bytes
    await js.update_stream(info.config, max_bytes=info.state.bytes + LITTLE_ROOM)
    # When another instance starts, then that is refused, and said
    late = Lease(front.client, Identity("agent", "late"), lambda: Load(models=(served(1, None),)))
    with pytest.raises(Overloaded, match="no room for more leases: run fewer instances"):
        await late.start()
    assert await told()
    # And who is there stays there: a lease that is renewed needs no more room than it had
    leases = Bucket(front.client, subjects.NODES_BUCKET, messages(NodeLease))
    before = (await leases.get(subjects.node_key("agent", "agent-1"))).revision
    await front.exchange(WEIGHTS)
    assert (await leases.get(subjects.node_key("agent", "agent-1"))).revision > before
    assert await instances() == there
    # And when there is room it comes, and nothing is said
    await js.update_stream(info.config, max_bytes=most_bytes)
    await late.start()
    await eventually(lambda: _is_in(instances, "late"))
    assert not await told()
    await late.stop()


async def _is_in(instances: Callable[[], Awaitable[set[str]]], name: str) -> bool:
    return name in await instances()
