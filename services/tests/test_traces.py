"""The trace of a request, from the client to the reply, over real services."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import TypeVar

import pytest
import pytest_asyncio
from nats.aio.client import Client

from infra.testing.mesh import DEADLINE_S, events, eventually
from infra.testing.plugin import SpawnService
from schemas import subjects
from schemas.commands import Ask
from schemas.events import (
    AnyEvent,
    GatherPulled,
    NodeSampled,
    RequestAccepted,
    RequestCompleted,
    RequestReplied,
    TaskCompleted,
    TaskPulled,
    TaskQueued,
)
from schemas.nodes.lease import NodeLease, ServedModel
from services.chassis.telemetry.tracing import Span
from services.client.client import Choir

pytestmark = pytest.mark.long

MODELS = ("alpha", "beta")
AGENT = {
    "name": "agent-1",
    "backend": "instant",
    "models": [{"name": model, "reply": f"{model} says Paris"} for model in MODELS],
}
SAMPLED_OFTEN = {"CHOIR_EVENTS__SAMPLE_INTERVAL_S": "0.2"}

EventT = TypeVar("EventT")


def ask(request_id: str, **fields: object) -> bytes:
    """A question to one model, or to all."""
    return Ask(request_id=request_id, prompt="What is the capital of France?", **fields).to_bytes()


async def told_of(
    connection: Client, request_id: str, complete: Callable[[list[AnyEvent]], bool]
) -> list[AnyEvent]:
    """All events of a request, once they are complete."""

    async def look() -> list[AnyEvent] | None:
        told = [event for event in await events(connection) if event.request_id == request_id]
        return told if complete(told) else None

    return await eventually(look, DEADLINE_S)


def replied(told: list[AnyEvent]) -> bool:
    """Whether all that belongs to an answered request is there: services publish at their own pace."""
    kinds = [event.kind for event in told]
    tasks = kinds.count("task_queued")
    whole = {"request_accepted", "request_completed", "request_replied"} <= set(kinds)
    return whole and tasks > 0 and kinds.count("task_completed") == tasks


def only(told: Sequence[AnyEvent], kind: type[EventT]) -> EventT:
    """The one event of a kind."""
    (event,) = (event for event in told if isinstance(event, kind))
    return event


@pytest_asyncio.fixture
async def mesh(mesh_url: str, connection: Client, spawn_service: SpawnService) -> str:
    """A router, an aggregator and an agent of two models; the URL."""
    services = [
        spawn_service("router", "router-1", env=SAMPLED_OFTEN),
        spawn_service("aggregator", "aggregator-1"),
        spawn_service("agent", "agent-1", agent=AGENT),
    ]
    for service in services:
        await service.wait_ready(connection)
    return mesh_url


async def test_every_event_of_a_request_is_in_its_clients_trace(mesh: str, connection: Client) -> None:
    client = Span.begin()
    for request in (ask("single", model="alpha"), ask("ensemble")):
        reply = await connection.request(subjects.ASK, request, timeout=DEADLINE_S, headers=client.headers)
        assert (reply.headers or {})[subjects.TRACE_HEADER].split("-")[1] == client.trace_id

    of_single = await told_of(connection, "single", replied)
    of_ensemble = await told_of(connection, "ensemble", replied)
    assert {event.trace_id for event in of_single + of_ensemble} == {client.trace_id}
    check_single(of_single, client)
    check_ensemble(of_ensemble, client)


def check_single(told: list[AnyEvent], client: Span) -> None:
    """Two pieces of work: the router's, and the agent's that it asked for."""
    accepted, pulled = only(told, RequestAccepted), only(told, TaskPulled)
    assert (accepted.parent_span_id, pulled.parent_span_id) == (client.span_id, accepted.span_id)
    assert only(told, RequestReplied).span_id == only(told, TaskQueued).span_id == accepted.span_id
    assert only(told, TaskCompleted).span_id == only(told, RequestCompleted).span_id == pulled.span_id


def check_ensemble(told: list[AnyEvent], client: Span) -> None:
    """The aggregator's work is asked for by the router, each agent's by the aggregator."""
    accepted, gathered = only(told, RequestAccepted), only(told, GatherPulled)
    assert (accepted.parent_span_id, gathered.parent_span_id) == (client.span_id, accepted.span_id)
    pulled = [event for event in told if isinstance(event, TaskPulled)]
    assert len({event.span_id for event in pulled}) == len(pulled) == len(MODELS)
    assert {event.parent_span_id for event in pulled} == {gathered.span_id}
    queued = [event for event in told if isinstance(event, TaskQueued)]
    assert {event.task_id for event in queued} == {event.task_id for event in pulled}


async def test_a_client_that_sends_no_trace_or_a_malformed_one_is_given_one(
    mesh: str, connection: Client
) -> None:
    for name, headers in (("none", None), ("bad", {subjects.TRACE_HEADER: "00-nonsense"})):
        request = ask(name, model="alpha")
        reply = await connection.request(subjects.ASK, request, timeout=DEADLINE_S, headers=headers)
        assert subjects.ERROR_HEADER not in (reply.headers or {})
        told = await told_of(connection, name, replied)
        assert len({event.trace_id for event in told}) == 1 and told[0].trace_id is not None
    async with Choir(mesh) as choir:
        fetched = await choir.submit("What is the capital of France?", model="alpha")
        await choir.fetch(fetched, wait_s=DEADLINE_S)
    told = await told_of(connection, fetched, replied)
    assert len({event.trace_id for event in told}) == 1

    async def the_malformed_one_is_counted() -> bool:
        sampled = [event for event in await events(connection) if isinstance(event, NodeSampled)]
        return any(event.service == "router" and event.traces_ignored == 1 for event in sampled)

    await eventually(the_malformed_one_is_counted)


async def test_a_command_that_is_delivered_again_keeps_its_trace(
    mesh_url: str, connection: Client, spawn_service: SpawnService
) -> None:
    router = spawn_service("router", "router-1")
    await router.wait_ready(connection)
    await pretend_to_serve(connection, "alpha")
    client = Span.begin()

    async def accepted() -> bool:
        request = ask("again", model="alpha")
        reply = await connection.request(subjects.SUBMIT, request, timeout=60, headers=client.headers)
        return subjects.ERROR_HEADER not in (reply.headers or {})

    await eventually(accepted)
    consumer = subjects.generate_consumer("interactive", "alpha")
    taker = await connection.jetstream().pull_subscribe_bind(consumer, subjects.COMMANDS_STREAM)
    (taken,) = await taker.fetch(1, timeout=DEADLINE_S)
    await taken.nak()
    await taker.unsubscribe()
    spawn_service("agent", "agent-1", agent=AGENT)

    def done(told: list[AnyEvent]) -> bool:
        return {"request_completed", "task_completed"} <= {event.kind for event in told}

    told = [e for e in await told_of(connection, "again", done) if e.kind != "request_refused"]
    assert {event.trace_id for event in told} == {client.trace_id}
    pulled = only(told, TaskPulled)
    assert (pulled.delivery, pulled.parent_span_id) == (2, only(told, RequestAccepted).span_id)


async def pretend_to_serve(connection: Client, model: str) -> None:
    """A lease of an agent that is not there: the router lets requests for its model in."""
    now_s = time.time()
    lease = NodeLease(
        service="agent", instance="agent-0", host="here", pid=1, version="0", state="ready",
        started_at_s=now_s, seen_at_s=now_s,
        models=(ServedModel(name=model, backend="instant", slots=1),),
    )  # fmt: skip
    bucket = await connection.jetstream().key_value(subjects.NODES_BUCKET)
    await bucket.put(subjects.node_key("agent", "agent-0"), lease.to_bytes())
