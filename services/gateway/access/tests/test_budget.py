"""Tokens of keys are counted over the mesh, whatever becomes of those who used them."""

from __future__ import annotations

import asyncio
import time

import pytest
from nats.aio.client import Client

from infra.testing.mesh import eventually
from schemas import subjects
from schemas.errors import Overloaded
from schemas.requests.keys import ApiKey, KeyLimits
from services.chassis.nats.bucket import BYTES, Bucket
from services.gateway.access.budget import Budgets

KEY = ApiKey(
    id="counted", digest="0" * 64, ending="0000", created_at_s=0.0, limits=KeyLimits(tokens_per_minute=50)
)


async def counted(connection: Client) -> int:
    """How many tokens of the key the mesh knows."""
    entry = await Bucket(connection, subjects.KEY_USES_BUCKET, BYTES).get(subjects.key_use(KEY.id))
    return sum(int(part.split(b":")[1]) for part in (entry.value or b"").split())


async def stored(connection: Client) -> int:
    """How many words the bucket has been told."""
    stream = subjects.bucket_stream(subjects.KEY_USES_BUCKET)
    return (await connection.jetstream().stream_info(stream)).state.last_seq


async def begun(budgets: Budgets, tokens: int) -> asyncio.Task[None]:
    """Tokens that are being counted."""
    counting = asyncio.create_task(budgets.charge(KEY, tokens))
    await asyncio.sleep(0)
    return counting


async def test_what_was_used_is_counted_though_its_client_hangs_up_meanwhile(connection: Client) -> None:
    budgets = Budgets(connection)
    counting = await begun(budgets, 7)
    counting.cancel()

    async def is_counted() -> bool:
        return await counted(connection) == 7

    await eventually(is_counted)
    assert counting.cancelled()


async def test_a_key_that_is_taken_away_meanwhile_hurts_nobody(connection: Client) -> None:
    budgets = Budgets(connection)
    counting = await begun(budgets, 7)
    budgets.forget(KEY.id)
    await counting


async def test_many_that_end_at_once_are_counted_in_few_words(connection: Client) -> None:
    began_s, budgets = time.monotonic(), Budgets(connection)
    before = await stored(connection)
    await asyncio.gather(*(budgets.charge(KEY, 3) for _ in range(100)))
    assert await counted(connection) == 300 or time.monotonic() - began_s > 50
    assert await stored(connection) - before <= 2, "the first, and all that came while that was stored"
    if time.monotonic() - began_s < 50:
        with pytest.raises(Overloaded, match="used 300 tokens"):
            await Budgets(connection).check(KEY)


async def test_where_the_mesh_has_no_place_for_it_each_gateway_counts_for_itself(connection: Client) -> None:
    # Given a broker whose host has an older Choir
    await connection.jetstream().delete_stream(subjects.bucket_stream(subjects.KEY_USES_BUCKET))
    one, other = Budgets(connection), Budgets(connection)
    # Then a key is served all the same, and has its limit at each
    await one.check(KEY)
    began_s = time.monotonic()
    await one.charge(KEY, 60)
    if time.monotonic() - began_s < 50:
        with pytest.raises(Overloaded, match="used 60 tokens"):
            await one.check(KEY)
    await other.check(KEY)
