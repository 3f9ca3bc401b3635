"""Requests a minute of keys are counted over the mesh: never one more than a key may ask."""

from __future__ import annotations

import asyncio
import time

import pytest
from nats.aio.client import Client

from infra.testing.mesh import eventually
from schemas import subjects
from schemas.errors import Overloaded
from services.chassis.nats.bucket import BYTES, Bucket
from services.gateway.access.minute import MINUTE_S, read_used
from services.gateway.access.rate import Rates

KEY = "rated"


async def counted(connection: Client) -> int:
    """How many requests of the key the mesh knows."""
    entry = await Bucket(connection, subjects.KEY_USES_BUCKET, BYTES).get(subjects.key_requests(KEY))
    return sum(read_used(entry.value).values())


async def told(connection: Client) -> int:
    """How many words the bucket has been told."""
    stream = subjects.bucket_stream(subjects.KEY_USES_BUCKET)
    return (await connection.jetstream().stream_info(stream)).state.last_seq


async def let_in(rates: Rates, most: int) -> bool:
    """Whether one more request is let in there."""
    try:
        await rates.of(KEY).take(most)
    except Overloaded:
        return False
    return True


async def test_gateways_let_in_together_what_a_key_may_ask_and_not_one_more(connection: Client) -> None:
    now_s = time.time()
    gateways = [Rates(connection, lambda: now_s) for _ in range(3)]
    taken = await asyncio.gather(*(let_in(gateways[number % 3], 4) for number in range(30)))
    assert sum(taken) == 4 == await counted(connection), "what is refused is not counted"
    # One after the other is no different, and one that comes later knows it too
    assert [await let_in(gateways[number % 3], 6) for number in range(4)] == [True, True, False, False]
    assert not await let_in(Rates(connection, lambda: now_s), 6)


async def test_it_is_said_when_there_is_room_and_then_there_is(connection: Client) -> None:
    now_s = begin_s = float(int(time.time()))
    rates = Rates(connection, lambda: now_s)
    assert await let_in(rates, 2)
    now_s += 20
    assert await let_in(rates, 2)
    now_s += 10
    with pytest.raises(Overloaded, match="may ask 2 requests a minute") as refusal:
        await rates.of(KEY).take(2)
    assert refusal.value.retry_after_s == MINUTE_S - 30
    now_s = begin_s + MINUTE_S - 1
    assert not await let_in(rates, 2)
    now_s += 1
    assert [await let_in(rates, 2) for _ in range(2)] == [True, False]


async def test_many_that_come_at_once_are_counted_in_few_words(connection: Client) -> None:
    rates, before = Rates(connection), await told(connection)
    assert all(await asyncio.gather(*(let_in(rates, 1_000) for _ in range(100))))
    assert await told(connection) - before <= 2


async def test_who_hangs_up_while_it_is_counted_leaves_others_as_they_are(connection: Client) -> None:
    now_s = time.time()
    rates = Rates(connection, lambda: now_s)
    gone = asyncio.create_task(rates.of(KEY).take(2))
    stays = asyncio.create_task(rates.of(KEY).take(2))
    await asyncio.sleep(0)
    gone.cancel()
    await stays

    async def both_are_counted() -> bool:
        return await counted(connection) == 2

    await eventually(both_are_counted)
    assert gone.cancelled()
    assert not await let_in(rates, 2)


async def test_where_the_mesh_has_no_place_for_it_each_gateway_counts_for_itself(connection: Client) -> None:
    # Given a broker whose host has an older Choir
    await connection.jetstream().delete_stream(subjects.bucket_stream(subjects.KEY_USES_BUCKET))
    now_s = time.time()
    one, other = Rates(connection, lambda: now_s), Rates(connection, lambda: now_s)
    # Then a key is served all the same, and has its limit at each
    for rates in (one, other):
        assert [await let_in(rates, 2) for _ in range(3)] == [True, True, False]
