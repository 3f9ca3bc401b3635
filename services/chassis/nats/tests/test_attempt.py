"""An attempt to reach the broker ends at its time, whatever the library makes of being told so."""

from __future__ import annotations

import asyncio
import contextlib

import pytest

from services.chassis.nats.connecting.attempt import Attempt
from services.chassis.process.cancelling import ended
from services.chassis.settings import MeshSection

DEADLINE_S = 180.0
FOR_EVER_S = 3_600.0


async def test_it_ends_at_its_time_though_the_library_forgets_that_it_was_cancelled() -> None:
    async def connects() -> None:
        async with Attempt(MeshSection()).within(0.05):
            for _ in range(2):
                with contextlib.suppress(asyncio.CancelledError):
                    await asyncio.sleep(FOR_EVER_S)
            await asyncio.sleep(FOR_EVER_S)

    task = asyncio.create_task(connects())
    done, _ = await asyncio.wait({task}, timeout=DEADLINE_S)
    await ended({task})
    assert done, "it goes on"
    with pytest.raises(TimeoutError):
        task.result()


async def test_what_ends_in_time_goes_on() -> None:
    async with Attempt(MeshSection()).within(DEADLINE_S):
        await asyncio.sleep(0)
    await asyncio.sleep(0)
