"""Requests of keys in work are counted over the mesh, whatever becomes of the gateways that have them."""

from __future__ import annotations

import asyncio
import time

import pytest
from nats.aio.client import Client

from infra.testing.mesh import eventually
from schemas import subjects
from schemas.errors import Overloaded
from services.chassis.nats.bucket import BYTES, Bucket
from services.gateway.access.places import Places, read_held, written_held

KEY = "placed"
SHORT_LEASE_S = 2.0


async def held(connection: Client) -> int:
    """How many places of the key the mesh knows to be held."""
    entry = await Bucket(connection, subjects.KEY_USES_BUCKET, BYTES).get(subjects.key_places(KEY))
    return sum(count for count, _ in read_held(entry.value).values())


async def told(connection: Client) -> int:
    """How many words the bucket has been told."""
    stream = subjects.bucket_stream(subjects.KEY_USES_BUCKET)
    return (await connection.jetstream().stream_info(stream)).state.last_seq


async def none_held(connection: Client) -> None:
    """Returns when nobody holds any."""

    async def is_so() -> bool:
        return await held(connection) == 0

    await eventually(is_so)


async def test_gateways_have_together_what_a_key_may_have(connection: Client) -> None:
    gateways = [Places(connection) for _ in range(3)]

    async def one(number: int) -> bool:
        try:
            await gateways[number % 3].of(KEY).take(4)
        except Overloaded:
            return False
        return True

    taken = await asyncio.gather(*(one(number) for number in range(30)))
    assert sum(taken) == 4 == await held(connection)
    for number, had in enumerate(taken):
        if had:
            gateways[number % 3].of(KEY).leave()
    await none_held(connection)


async def test_what_one_gateway_has_left_another_has_at_once(connection: Client) -> None:
    gateways = [Places(connection) for _ in range(3)]
    for number in range(12):
        places = gateways[number % 3].of(KEY)
        await places.take(1)
        places.leave()
    await none_held(connection)


async def test_who_asks_one_thing_after_the_other_is_told_of_in_few_words(connection: Client) -> None:
    places, before = Places(connection).of(KEY), await told(connection)
    for _ in range(200):
        await places.take(2)
        places.leave()
    await none_held(connection)
    assert await told(connection) - before <= 20, "a place is kept for the next request"


async def test_places_of_a_gateway_that_was_killed_are_free_when_its_lease_is_over(
    connection: Client,
) -> None:
    bucket = Bucket(connection, subjects.KEY_USES_BUCKET, BYTES)

    async def killed(lease_s: float) -> None:
        row = {"killed": (1, int(time.time() + lease_s))}
        await bucket.put(subjects.key_places(KEY), written_held(row))

    living = Places(connection).of(KEY)
    await killed(lease_s=3_600)
    with pytest.raises(Overloaded, match="may have at a time: 1"):
        await living.take(1)
    await killed(lease_s=-1)
    await living.take(1)


async def test_a_lease_is_renewed_as_long_as_a_request_is_in_work(connection: Client) -> None:
    places, bucket = Places(connection, SHORT_LEASE_S), Bucket(connection, subjects.KEY_USES_BUCKET, BYTES)
    await places.of(KEY).take(1)

    async def until_s() -> int:
        held = read_held((await bucket.get(subjects.key_places(KEY))).value)
        return held[places.gateway][1]

    first_s = await until_s()

    async def is_longer() -> bool:
        return await until_s() > first_s

    await eventually(is_longer)
    places.of(KEY).leave()
    await none_held(connection)


async def test_who_goes_away_while_a_place_is_sought_holds_none(connection: Client) -> None:
    places = Places(connection).of(KEY)
    for steps in range(12):
        taking = asyncio.create_task(places.take(3))
        for _ in range(steps):
            await asyncio.sleep(0)
        taking.cancel()
        await asyncio.wait([taking])
        if not taking.cancelled():
            places.leave()
    await none_held(connection)
    await places.take(1)


async def test_a_gateway_that_ends_holds_nothing(connection: Client) -> None:
    ending = Places(connection)
    places = ending.of(KEY)
    await places.take(1)
    places.leave()
    await ending.settle()
    assert await held(connection) == 0


async def test_where_the_mesh_has_no_place_for_it_each_gateway_counts_for_itself(connection: Client) -> None:
    # Given a broker whose host has an older Choir
    await connection.jetstream().delete_stream(subjects.bucket_stream(subjects.KEY_USES_BUCKET))
    places = Places(connection).of(KEY)
    # Then a key is served all the same, and has its limit at each
    await places.take(1)
    with pytest.raises(Overloaded):
        await places.take(1)
