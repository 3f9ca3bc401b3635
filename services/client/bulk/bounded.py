"""Runs many jobs at once, with bounded concurrency."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine, Iterable
from itertools import islice
from typing import Any, TypeVar

from services.chassis.process.cancelling import ended

JobT = TypeVar("JobT")
DoneT = TypeVar("DoneT")


async def spread(
    jobs: Iterable[JobT], work: Callable[[JobT], Awaitable[DoneT]], room: Callable[[], int]
) -> AsyncGenerator[DoneT, None]:
    """What `work` makes of each job, as it is done; at most `room()` of them are under way, and never none.

    A job is taken from `jobs` only when there is room for it, so that memory does not grow with their
    number. The first error of a job ends all of it: the other jobs are cancelled, and the error is raised.
    """
    waiting = iter(jobs)
    running: set[asyncio.Future[DoneT]] = set()
    try:
        while True:
            free = max(1, room()) - len(running)
            running |= {asyncio.ensure_future(work(job)) for job in islice(waiting, max(0, free))}
            if not running:
                return
            done, _ = await asyncio.wait(running, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                outcome = task.result()
                running.discard(task)
                yield outcome
    finally:
        await ended(running)


async def together(work: Iterable[Coroutine[Any, Any, DoneT]]) -> list[DoneT]:
    """All of it at once, in order; the first error ends the rest, which is cancelled before it is raised."""
    tasks = [asyncio.ensure_future(part) for part in work]
    try:
        return await asyncio.gather(*tasks)
    finally:
        await ended(tasks)


class Gate:
    """Lets as many in as `room()` says at the moment, in the order of their coming, and never none."""

    def __init__(self, room: Callable[[], int]) -> None:
        self._room = room
        self._inside = 0
        self._left = asyncio.Condition()

    async def __aenter__(self) -> None:
        async with self._left:
            await self._left.wait_for(lambda: self._inside < max(1, self._room()))
            self._inside += 1

    async def __aexit__(self, *_: object) -> None:
        async with self._left:
            self._inside -= 1
            self._left.notify()
