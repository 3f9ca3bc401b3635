"""What happened is told in order, is valid, and is kept."""

from __future__ import annotations

import time

import pytest
from nats.aio.client import Client

from infra.testing.mesh import events, eventually, open_mesh, state
from infra.testing.plugin import connect
from schemas import subjects
from schemas.errors import Overloaded
from schemas.events import ANY_EVENT, Event, RequestRefused, ServiceStarted, ServiceStopped
from schemas.tests.golden.samples import SAMPLES
from services.chassis.identity import Identity
from services.chassis.telemetry.events import EventLog, kind_of, written


async def test_facts_are_kept_in_order_with_who_and_when(connection: Client) -> None:
    mesh = open_mesh(connection, "router", "router-1")
    before_s = time.time()
    mesh.events.publish(ServiceStarted, pid=3)
    mesh.events.publish(RequestRefused, request_id="r1", error=Overloaded("full").body("r1"))
    mesh.events.publish(ServiceStopped)

    await eventually(lambda: _kept(connection, 3))
    kept = await events(connection)

    assert [event.kind for event in kept] == ["service_started", "request_refused", "service_stopped"]
    assert {(event.service, event.instance) for event in kept} == {("router", "router-1")}
    assert all(before_s <= event.at_s <= time.time() for event in kept)
    assert len({event.event_id for event in kept}) == 3
    refused = kept[1]
    assert isinstance(refused, RequestRefused)
    assert (refused.request_id, refused.error.code) == ("r1", "overloaded")


@pytest.mark.parametrize("name", [n for n, sample in SAMPLES.items() if isinstance(sample, Event)])
def test_every_event_is_written_so_that_its_model_reads_the_same(name: str) -> None:
    sample = SAMPLES[name]
    assert isinstance(sample, Event)
    fields = {field: getattr(sample, field) for field in sample.model_fields_set if field != "kind"}
    assert ANY_EVENT.validate_json(written(kind_of(type(sample)), fields)) == sample


async def test_where_events_are_off_nothing_is_published(connection: Client) -> None:
    quiet = EventLog(connection, Identity("router", "router-1"), enabled=False)
    quiet.publish(ServiceStopped)
    await quiet.close()
    assert (await state(connection, subjects.EVENTS_STREAM)).messages == 0


async def test_each_kind_has_a_subject_of_its_own(connection: Client) -> None:
    mesh = open_mesh(connection, "router")
    heard = await connection.subscribe(subjects.event("router", "service_stopped"))
    mesh.events.publish(ServiceStarted, pid=3)
    mesh.events.publish(ServiceStopped)
    await mesh.events.flush()
    assert b"service_stopped" in (await heard.next_msg(60)).data


async def test_a_fact_that_cannot_be_sent_is_dropped_and_stops_nothing(mesh_url: str) -> None:
    client = await connect(mesh_url)
    mesh = open_mesh(client)
    await client.close()
    assert mesh.events.problem is None
    mesh.events.publish(ServiceStopped)
    await mesh.events.flush()
    assert mesh.events.dropped == 1
    assert mesh.events.problem is not None, "the lease says so, and `choir status` shows it"
    assert mesh.events.problem.message.startswith("1 events could not be sent")


async def _kept(client: Client, count: int) -> bool:
    return (await state(client, subjects.EVENTS_STREAM)).messages == count
