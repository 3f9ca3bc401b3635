"""The connection: it says what it lost, calls back when it is there again, and refuses what is too large."""

from __future__ import annotations

from collections import Counter
from functools import partial
from typing import Any

import nats
import nats.aio.client
import nats.errors
import pytest
from nats.aio.client import Client
from nats.aio.msg import Msg

from infra.broker.broker import Broker
from infra.testing.broker.cable import mesh_on_a_cable
from infra.testing.mesh import DEADLINE_S, eventually, settled
from infra.testing.plugin import connect
from schemas import subjects
from schemas.errors import BrokerUnavailable, PayloadTooLarge
from services.chassis.context import ServiceContext
from services.chassis.identity import Identity
from services.chassis.nats import connection as connection_module
from services.chassis.nats.bucket import BYTES, Bucket
from services.chassis.nats.connecting.deafness import reconnect_when_deaf
from services.chassis.nats.connection import (
    ENVELOPE_BYTES,
    ConnectionEvents,
    check_payload,
    connection_options,
    read_at_once,
)
from services.chassis.settings import MeshSection


def test_options_say_who_it_is_and_give_it_an_inbox_of_its_own() -> None:
    mesh = MeshSection(url="nats://there:1", user="router", password="open")
    options = connection_options(mesh, Identity("router", "router-1"), ConnectionEvents())
    assert options["servers"] == ["nats://there:1"]
    assert (options["user"], options["password"]) == ("router", "open")
    assert options["name"] == "router-1"
    assert options["inbox_prefix"] == b"_INBOX_router.router-1"
    assert options["max_reconnect_attempts"] == -1


async def test_a_connection_reads_as_much_at_once_as_it_was_told_before(
    mesh_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(nats.aio.client, "DEFAULT_BUFFER_SIZE", nats.aio.client.DEFAULT_BUFFER_SIZE)
    read_at_once(1 << 20)
    client = await connect(mesh_url)
    # The transport is told to pause only beyond that, and a message of this size comes whole
    transport: Any = client._transport
    assert transport._io_reader._limit == 1 << 20
    content = bytes(range(256)) * 2_048
    heard = await client.subscribe("large")
    await client.publish("large", content)
    assert (await heard.next_msg(timeout=DEADLINE_S)).data == content
    await client.close()


async def test_a_message_that_the_broker_would_not_carry_is_refused_by_name(connection: Client) -> None:
    most = connection.max_payload - ENVELOPE_BYTES
    check_payload(connection, b"x" * most)
    with pytest.raises(PayloadTooLarge, match=f"messages: the message has {most + 1} bytes") as refused:
        check_payload(connection, b"x" * (most + 1), "messages")
    assert refused.value.field == "messages"


async def test_it_comes_back_after_the_broker_was_killed_and_says_so_to_those_who_asked(
    own_broker: Broker,
) -> None:
    events = ConnectionEvents()
    told: list[str] = []

    async def first() -> None:
        told.append("first")

    async def second() -> None:
        told.append("second")

    events.on_reconnect(first)
    events.on_reconnect(second)
    options = connection_options(MeshSection(url=own_broker.url), Identity("agent", "a"), events)
    client = await nats.connect(**(options | {"reconnect_time_wait": 0.05}))
    try:
        own_broker.kill()
        await eventually(lambda: not client.is_connected)
        assert told == []
        await own_broker.restart()
        await eventually(lambda: len(told) == 2)
        assert told == ["first", "second"]
        other = await connect(own_broker.url)
        heard = await other.subscribe("greeting")
        await settled(other)
        await client.publish("greeting", b"here again")
        assert (await heard.next_msg(60)).data == b"here again"
        await other.close()
    finally:
        events.closing()
        await client.close()


async def killed_and_back(broker: Broker, client: Client) -> None:
    """A broker that is killed, which the client notices, and started again."""
    broker.kill()
    await eventually(lambda: not client.is_connected)
    await broker.restart()


async def test_who_cannot_learn_what_happened_meanwhile_is_asked_again_and_the_others_are_told(
    own_broker: Broker,
) -> None:
    events = ConnectionEvents()
    told: list[str] = []

    async def unlucky() -> None:
        told.append("unlucky")
        if told.count("unlucky") < 3:
            raise BrokerUnavailable("stream KV_plans could not be read")

    async def lucky() -> None:
        told.append("lucky")

    events.on_reconnect(unlucky)
    events.on_reconnect(lucky)
    options = connection_options(MeshSection(url=own_broker.url), Identity("agent", "a"), events)
    client = await nats.connect(**(options | {"reconnect_time_wait": 0.05}))
    try:
        await killed_and_back(own_broker, client)
        await eventually(lambda: told.count("unlucky") == 3)
        assert told == ["unlucky", "lucky", "unlucky", "unlucky"]
        # And the next loss of the connection is mended too
        await killed_and_back(own_broker, client)
        await eventually(lambda: len(told) == 6)
        assert told[4:] == ["unlucky", "lucky"]
    finally:
        events.closing()
        await client.close()


async def test_a_trial_that_the_broker_does_not_answer_leaves_no_subscription(
    connection: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def mute() -> None:
        raise nats.errors.TimeoutError

    before = set(connection._subs)
    monkeypatch.setattr(connection, "flush", mute)
    with pytest.raises(nats.errors.TimeoutError):
        await ConnectionEvents().may_hear(connection, "greeting")
    assert set(connection._subs) == before


async def test_a_broker_that_stood_still_for_longer_than_a_ping_may_take_is_heard_again(
    own_broker: Broker,
) -> None:
    mesh = MeshSection(url=own_broker.url)
    options = connection_options(mesh, Identity("agent", "a"), ConnectionEvents())
    client = ServiceContext(await nats.connect(**options), Identity("agent", "a"), ConnectionEvents()).client
    try:
        own_broker.pause()
        with pytest.raises(nats.errors.TimeoutError):
            await client.rtt(1)
        own_broker.resume()
        await client.rtt(int(DEADLINE_S))  # its pong comes after the late one
        info = await client.jetstream(timeout=DEADLINE_S).account_info()
        assert info.streams
    finally:
        own_broker.resume()
        await client.close()


@pytest.mark.parametrize("notices", ["the end of its reading", "the missing pongs"])
async def test_a_connection_that_hears_nothing_any_more_is_made_anew(
    own_broker: Broker, monkeypatch: pytest.MonkeyPatch, notices: str
) -> None:
    # Given a client whose reading loop has ended by a fault of its library: it can send, and hears nothing
    by_pongs = notices == "the missing pongs"
    monkeypatch.setattr(connection_module, "PING_INTERVAL_S", 0.5 if by_pongs else 3600)
    events = ConnectionEvents()
    told: list[str] = []
    events.on_disconnect(lambda: told.append("lost"))
    mesh = MeshSection(url=own_broker.url)
    client = await nats.connect(**connection_options(mesh, Identity("agent", "a"), events))
    heard = await client.subscribe("greeting")
    if not by_pongs:
        reconnect_when_deaf(client)
    try:
        own_broker.pause()
        with pytest.raises(nats.errors.TimeoutError):
            await client.rtt(1)
        own_broker.resume()  # the late pong ends the loop: no service has this client, and mends that
        # When nobody does anything, then it hears again what comes on its subscription
        await eventually(lambda: "lost" in told)
        await eventually(lambda: client.is_connected)
        await client.publish("greeting", b"here again")
        assert (await heard.next_msg(DEADLINE_S)).data == b"here again"
    finally:
        own_broker.resume()
        events.closing()
        await client.close()


def all_told(told: list[str], expected: dict[str, int]) -> bool:
    return Counter(told) == expected


async def test_a_fault_of_one_who_is_told_of_the_connection_keeps_nobody_from_connecting_again(
    mesh_url: str,
) -> None:
    """Nor the others from being told: what one of them has wrong is in the log, and it is told again."""
    async with mesh_on_a_cable(mesh_url) as (mesh, way):
        told: list[str] = []

        def faulty_at_loss() -> None:
            told.append("lost")
            raise KeyError("plans")

        async def faulty() -> None:
            told.append("faulty")
            if told.count("faulty") == 1:
                raise KeyError("plans")

        async def sound() -> None:
            told.append("sound")

        mesh.connection.on_disconnect(faulty_at_loss)
        mesh.connection.on_reconnect(faulty)
        mesh.connection.on_reconnect(sound)
        for times in (1, 2):
            await way.cut_from(mesh)
            await way.mend()
            expected = {"sound": times, "faulty": times + 1, "lost": times}
            await eventually(partial(all_told, told, expected))


async def test_a_message_whose_callback_fails_is_told_and_the_next_one_is_taken(
    mesh_url: str, capsys: pytest.CaptureFixture[str]
) -> None:
    async with mesh_on_a_cable(mesh_url) as (mesh, _way):
        taken: list[bytes] = []

        async def take(msg: Msg) -> None:
            if msg.data == b"odd":
                raise ZeroDivisionError("of the test")
            taken.append(msg.data)

        await mesh.client.subscribe("greeting", cb=take)
        for word in (b"odd", b"well"):
            await mesh.client.publish("greeting", word)
        await eventually(lambda: taken == [b"well"])
    said = capsys.readouterr().out
    assert "a message could not be taken" in said
    assert "ZeroDivisionError: of the test" in said


async def test_who_was_too_slow_for_his_messages_is_told_and_reads_again_what_he_missed(
    mesh_url: str, connection: Client, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Given a client that has room for two messages, and a bucket that changes a hundred times at once."""
    keys = [f"agent.{number}" for number in range(100)]
    known: dict[str, bytes] = {}
    async with mesh_on_a_cable(mesh_url) as (mesh, _way):
        bucket = Bucket(mesh.client, subjects.SCORES_BUCKET, BYTES, known.__setitem__, known.__delitem__)
        mesh.connection.on_missed(subjects.bucket_updates(subjects.SCORES_BUCKET), bucket.reload)
        monkeypatch.setattr(mesh.client, "subscribe", partial(mesh.client.subscribe, pending_msgs_limit=2))
        await bucket.watch()
        assert mesh.connection.problem is None
        for key in keys:
            await connection.publish(subjects.bucket_key(subjects.SCORES_BUCKET, key), b"new")
        await connection.flush()
        await eventually(lambda: mesh.connection.missed > 0)
        await eventually(lambda: sorted(known) == sorted(keys))
        problem = mesh.connection.problem
        assert problem is not None and problem.code == "overloaded"
        monkeypatch.setattr(connection_module, "MISSED_TOLD_S", 0.0)
        assert mesh.connection.problem is None
    said = capsys.readouterr().out
    assert said.count("messages were dropped") >= 1
    assert subjects.bucket_updates(subjects.SCORES_BUCKET) in said
