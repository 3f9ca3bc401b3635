"""Durable steps and reads on a real broker."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable

import pytest
from nats.aio.client import Client

from infra.broker.broker import Broker
from infra.testing.broker.lost_words import LostWords
from infra.testing.mesh import DEADLINE_S, bodies, state
from infra.testing.plugin import connect
from schemas import subjects
from schemas.errors import BrokerUnavailable, Overloaded, PayloadTooLarge
from services.chassis.nats import reading
from services.chassis.nats import streams as storage_module
from services.chassis.nats.streams import Storage

QUEUE = subjects.generate("interactive", "alpha", "r1")
RESULT = subjects.result("r1")


async def limit_queue(client: Client, messages: int) -> None:
    """Make the queue of work small."""
    js = client.jetstream()
    config = (await js.stream_info(subjects.COMMANDS_STREAM)).config
    config.max_msgs = messages
    await js.update_stream(config)


async def test_of_two_outcomes_the_first_stays_and_the_second_is_told_so(connection: Client) -> None:
    storage = Storage(connection)
    assert await storage.store_once(RESULT, b"first") is True
    assert await storage.store_once(RESULT, b"second") is False
    assert await bodies(connection, subjects.RESULTS_STREAM) == [b"first"]


async def test_an_outcome_whose_word_was_lost_is_known_as_ones_own(
    connection: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = LostWords(monkeypatch, "choir.result", 1)
    assert await Storage(connection).store_once(subjects.result("r1"), b"mine")
    assert words.lost == 1
    assert not await Storage(connection).store_once(subjects.result("r1"), b"another's")


async def test_of_many_outcomes_at_once_exactly_one_stays(connection: Client) -> None:
    storage = Storage(connection)
    stored = await asyncio.gather(*(storage.store_once(RESULT, b"%d" % i) for i in range(20)))
    assert sum(stored) == 1
    assert await bodies(connection, subjects.RESULTS_STREAM) == [b"%d" % stored.index(True)]


async def test_only_what_was_stored_is_heard_on_the_republished_subject(connection: Client) -> None:
    storage = Storage(connection)
    heard = await connection.subscribe(subjects.ALL_STORED_RESULTS)
    await storage.store_once(RESULT, b"first")
    await storage.store_once(RESULT, b"second")
    await storage.store_once(subjects.result("r2"), b"another")
    assert [(await heard.next_msg(60)).data for _ in range(2)] == [b"first", b"another"]


async def test_a_command_of_the_same_id_is_a_duplicate_of_the_first(connection: Client) -> None:
    storage = Storage(connection)
    first = await storage.enqueue(QUEUE, b"once", message_id="r1")
    again = await storage.enqueue(QUEUE, b"twice", message_id="r1")
    assert (first.duplicate, again.duplicate) == (False, True)
    assert again.sequence == first.sequence
    assert await bodies(connection, subjects.COMMANDS_STREAM) == [b"once"]


async def test_a_full_queue_is_overload_and_says_when_to_try_again(connection: Client) -> None:
    storage = Storage(connection)
    await limit_queue(connection, 1)
    await storage.enqueue(QUEUE, b"fits", message_id="r1")
    with pytest.raises(Overloaded) as refused:
        await storage.enqueue(QUEUE, b"does not", message_id="r2")
    assert refused.value.retry_after_s
    assert (await state(connection, subjects.COMMANDS_STREAM)).messages == 1


async def test_a_message_that_is_too_large_is_refused_before_it_costs_the_connection(
    connection: Client,
) -> None:
    storage = Storage(connection)
    large = b"x" * (connection.max_payload + 1)
    with pytest.raises(PayloadTooLarge) as prompt:
        await storage.enqueue(QUEUE, large, message_id="r1")
    with pytest.raises(PayloadTooLarge) as answer:
        await storage.store_once(RESULT, large)
    assert (prompt.value.field, answer.value.field) == ("prompt", "answer")
    assert connection.is_connected
    assert (await state(connection, subjects.COMMANDS_STREAM)).messages == 0


async def test_the_dead_are_kept_with_the_reason_on_one_line(connection: Client) -> None:
    await Storage(connection).dead_letter("agent", "r1", b"body", "first line\nsecond line")
    message = await connection.jetstream().get_msg(subjects.DEAD_STREAM, seq=1)
    assert message.data == b"body"
    assert message.subject == subjects.dead("agent", "r1")
    assert (message.headers or {})[subjects.REASON_HEADER] == "first line second line"


async def test_what_is_stored_is_found_by_subject_wildcard_and_number(connection: Client) -> None:
    storage = Storage(connection)
    commands = subjects.COMMANDS_STREAM
    first = await storage.enqueue(QUEUE, b"one", message_id="r1")
    other = subjects.generate("batch", "beta", "r2")
    second = await storage.enqueue(other, b"two", message_id="r2")

    by_subject = await storage.last(commands, QUEUE)
    by_wildcard = await storage.last(commands, subjects.commands_of("r2")[2])
    by_number = await storage.at(commands, first.sequence)
    following = await storage.next(commands, subjects.ALL_COMMANDS, first.sequence + 1)

    assert by_subject is not None and by_subject.data == b"one"
    assert by_wildcard is not None and (by_wildcard.data, by_wildcard.subject) == (b"two", other)
    assert by_number == by_subject
    assert following is not None and following.sequence == second.sequence


async def test_the_last_of_each_subject_is_found_at_once(connection: Client) -> None:
    storage = Storage(connection)
    for request_id, payload in (("r1", b"one"), ("r2", b"two"), ("r3", b"three")):
        queue = subjects.generate("batch", "beta", request_id)
        await storage.enqueue(queue, payload, message_id=request_id)
    found = await storage.last_of_each(subjects.COMMANDS_STREAM, subjects.ALL_COMMANDS)
    assert [(stored.sequence, stored.data) for stored in found] == [(1, b"one"), (2, b"two"), (3, b"three")]
    assert await storage.last_of_each(subjects.COMMANDS_STREAM, QUEUE) == []


async def test_what_is_not_there_is_none(connection: Client) -> None:
    storage = Storage(connection)
    assert await storage.last(subjects.RESULTS_STREAM, RESULT) is None
    assert await storage.at(subjects.RESULTS_STREAM, 1) is None
    assert await storage.next(subjects.RESULTS_STREAM, subjects.ALL_RESULTS, 1) is None
    assert await storage.last_sequence(subjects.RESULTS_STREAM) == 0


async def test_without_a_broker_writes_end_within_their_patience_and_reads_within_theirs(
    own_broker: Broker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reading, "READ_TIMEOUT_S", 0.3)
    monkeypatch.setattr(storage_module, "READ_PATIENCE_S", 0.5)
    monkeypatch.setattr(storage_module, "PUBLISH_TIMEOUT_S", 0.3)
    client = await connect(own_broker.url)
    storage = Storage(client)
    own_broker.kill()
    try:
        started = time.monotonic()
        with pytest.raises(BrokerUnavailable):
            await storage.enqueue(QUEUE, b"lost", message_id="r1", patience_s=0.5)
        with pytest.raises(BrokerUnavailable):
            await storage.store_once(RESULT, b"lost", patience_s=0.5)
        with pytest.raises(BrokerUnavailable):
            await storage.last(subjects.RESULTS_STREAM, RESULT)
        assert time.monotonic() - started < 60
    finally:
        with contextlib.suppress(ConnectionResetError):  # nats-py tells of what it lost while it closes
            await client.close()


async def test_a_read_outlasts_a_broker_that_stands_still_for_a_moment(
    own_broker: Broker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reading, "READ_TIMEOUT_S", 0.2)
    monkeypatch.setattr(storage_module, "READ_PATIENCE_S", 120.0)
    client = await connect(own_broker.url)
    storage = Storage(client)
    await storage.store_once(RESULT, b"there")
    own_broker.pause()
    try:
        waiting = asyncio.create_task(storage.last(subjects.RESULTS_STREAM, RESULT))
        await asyncio.wait([waiting], timeout=1.0)
    finally:
        own_broker.resume()
    stored = await waiting
    assert stored is not None and stored.data == b"there"
    await client.close()


async def test_an_outcome_waits_for_the_broker_to_come_back(own_broker: Broker) -> None:
    client = await connect(own_broker.url)
    storage = Storage(client)
    own_broker.kill()
    try:
        waiting = asyncio.create_task(storage.store_once(RESULT, b"kept", patience_s=60))
        await own_broker.restart()
        await waiting  # True, or False if a first attempt was stored and its acknowledgement lost
        stored = await storage.last(subjects.RESULTS_STREAM, RESULT)
        assert stored is not None and stored.data == b"kept"
    finally:
        await client.close()


@pytest.mark.parametrize("spare_bytes", [400, 100, 0])
async def test_the_largest_command_can_be_kept_in_dead_too_with_as_much_of_its_reason_as_fits(
    connection: Client, spare_bytes: int
) -> None:
    """A broker closes the connection of whoever sends it more than it carries, headers included."""
    storage = Storage(connection)
    command = b"x" * (connection.max_payload - spare_bytes)
    lost: list[bool] = []
    connection._disconnected_cb = _note(lost)
    async with asyncio.timeout(DEADLINE_S):
        await storage.dead_letter("agent", "r1", command, "it is not a Generate: " + "why " * 200)
    dead = await connection.jetstream().get_msg(subjects.DEAD_STREAM, seq=1)
    reason = (dead.headers or {})[subjects.REASON_HEADER]
    assert "not a Generate" in reason
    assert command.startswith(dead.data or b"?")
    assert dead.data == command or f"cut from {len(command)} bytes" in reason
    assert not lost


def _note(lost: list[bool]) -> Callable[[], Awaitable[None]]:
    async def note() -> None:
        lost.append(True)

    return note
