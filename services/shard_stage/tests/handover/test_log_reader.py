"""Reading the log of a pipeline from a real broker."""

from __future__ import annotations

import asyncio
import time

import pytest
from nats.aio.client import Client

from infra.testing.mesh import eventually, state
from schemas import subjects
from schemas.errors import BrokerUnavailable
from schemas.pipelines.stage_wire import Token
from services.shard_stage.handover.log_reader import BATCH_MESSAGES, read_items, read_log

SUBJECT = subjects.stage(7, 1)


async def everything(client: Client, since_s: float | None = None) -> list[bytes]:
    return [data async for data in read_log(client, subjects.ACTIVATIONS_STREAM, SUBJECT, since_s)]


async def stored(client: Client, messages: int) -> None:
    """Returns when the stream holds so many: the broker stores them some time after it has read them."""

    async def all_there() -> bool:
        return (await state(client, subjects.ACTIVATIONS_STREAM)).messages == messages

    await eventually(all_there)


async def test_an_empty_log_has_nothing(connection: Client) -> None:
    assert await everything(connection) == []


async def test_a_log_of_several_batches_comes_whole_and_in_its_order(connection: Client) -> None:
    wanted = [str(number).encode() for number in range(2 * BATCH_MESSAGES + 5)]
    for data in wanted:
        await connection.publish(SUBJECT, data)
        await connection.publish(subjects.stage(7, 2), b"another stage's")
    await stored(connection, 2 * len(wanted))
    assert await everything(connection) == wanted


async def test_a_log_can_be_read_from_a_time_on(connection: Client) -> None:
    await connection.publish(SUBJECT, b"early")
    await stored(connection, 1)
    first = await connection.jetstream().get_last_msg(subjects.ACTIVATIONS_STREAM, SUBJECT)
    assert first.time is not None
    since_s = first.time.timestamp() + 0.001
    await asyncio.sleep(max(0.0, since_s + 0.002 - time.time()))
    await connection.publish(SUBJECT, b"late")
    await stored(connection, 2)
    assert await everything(connection, since_s) == [b"late"]
    assert await everything(connection, since_s - 60) == [b"early", b"late"]


async def test_a_log_that_is_not_there_is_said_to_be(connection: Client) -> None:
    with pytest.raises(BrokerUnavailable):
        async for _ in read_log(connection, "NOWHERE", SUBJECT, None):
            pass


async def test_what_cannot_be_read_is_left_out_of_a_log(connection: Client) -> None:
    """Damaged on its way, or of a version that this service does not know."""
    readable = [Token(1, 7, 3, position, 40) for position in range(3)]
    other_version = bytearray(readable[0].to_bytes())
    other_version[4] = 9
    damaged = readable[1].to_bytes() + b"CHAT and no more"
    for message in (readable[0].to_bytes(), bytes(other_version), damaged, readable[2].to_bytes(), b""):
        await connection.publish(SUBJECT, message)
    await stored(connection, 5)
    found = [item async for item in read_items(connection, SUBJECT, None)]
    assert [item.position for item in found if isinstance(item, Token)] == [0, 1, 2]
