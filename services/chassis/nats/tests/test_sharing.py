"""What tenants share: nobody waits for ever for a turn, and a turn that is over is another one's."""

from __future__ import annotations

import asyncio

import pytest

from schemas.errors import Overloaded
from services.chassis.nats.sharing import Turns


async def test_who_has_no_turn_in_time_is_told_so_and_takes_nobody_elses() -> None:
    turns, over = Turns(2), asyncio.Event()

    async def work() -> None:
        async with turns.of("alice"):
            await over.wait()

    working = [asyncio.create_task(work()) for _ in range(2)]
    await asyncio.sleep(0)
    with pytest.raises(Overloaded, match="no turn") as refused:
        async with turns.of("alice", patience_s=0.01):
            pytest.fail("there is no turn")
    assert refused.value.retry_after_s is not None
    # Another tenant has turns of its own
    async with turns.of("bob", patience_s=0.01):
        over.set()
    await asyncio.gather(*working)
    for _ in range(3):
        async with turns.of("alice", patience_s=60):
            pass
