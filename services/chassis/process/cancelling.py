"""Ends asyncio tasks for sure, where a library forgets that they were cancelled."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Any

AGAIN_S = 1.0
"""Time for a task to tidy up before it is told again."""


async def ended(tasks: Iterable[asyncio.Future[Any]]) -> None:
    """Cancels tasks, and returns when they have ended; how they did stays with them.

    To cancel once is not enough: the flush of nats-py waits with `asyncio.wait_for`, which in Python 3.11
    forgets a cancellation that comes together with the result it waits for, and the task goes on. Services
    wait with `asyncio.timeout`.
    """
    pending = set(tasks)
    while pending:
        for task in pending:
            task.cancel()
        done, pending = await asyncio.wait(pending, timeout=AGAIN_S)
        for task in done:
            if not task.cancelled():
                task.exception()  # seen: asyncio does not complain of it


def check_cancelled() -> None:
    """Raises CancelledError in a task that was cancelled while a library forgot it, as above: for the points
    where long work with much to tidy up, which cannot be told again, goes from one step to the next."""
    task = asyncio.current_task()
    if task is not None and task.cancelling():
        raise asyncio.CancelledError
