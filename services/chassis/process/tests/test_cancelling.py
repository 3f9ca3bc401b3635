"""Tasks end when they are told to, even where what they wait for forgets that they were told."""

from __future__ import annotations

import asyncio
from contextlib import suppress

import pytest

from services.chassis.process.cancelling import check_cancelled, ended


async def test_a_task_that_misses_its_cancellation_is_told_again() -> None:
    missed = 0

    async def forgetful() -> None:
        nonlocal missed
        while True:
            try:
                await asyncio.sleep(60)
            except asyncio.CancelledError:
                missed += 1
                if missed == 3:
                    raise

    task = asyncio.create_task(forgetful())
    await asyncio.sleep(0)
    await asyncio.wait_for(ended([task]), 180)
    assert missed == 3 and task.cancelled()


async def test_how_a_task_ended_stays_with_it() -> None:
    async def fails() -> None:
        raise ValueError("of its own")

    failed, done = asyncio.create_task(fails()), asyncio.create_task(asyncio.sleep(0, "done"))
    await asyncio.sleep(0.01)
    await ended([failed, done])
    assert done.result() == "done"
    with pytest.raises(ValueError, match="of its own"):
        failed.result()


async def test_no_tasks_have_ended() -> None:
    await asyncio.wait_for(ended([]), 180)


async def test_a_task_finds_out_that_it_was_cancelled_between_two_of_its_steps() -> None:
    steps: list[str] = []

    async def works() -> None:
        steps.append("first")
        with suppress(asyncio.CancelledError):
            await asyncio.sleep(60)
        check_cancelled()
        steps.append("second")

    check_cancelled()  # nobody cancelled this one
    task = asyncio.create_task(works())
    await asyncio.sleep(0)
    task.cancel()
    await asyncio.wait([task])
    assert task.cancelled() and steps == ["first"]
