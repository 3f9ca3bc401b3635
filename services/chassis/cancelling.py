"""Ending tasks for sure."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Any

AGAIN_S = 1.0
"""Time for a task to tidy up before it is told again."""


async def ended(tasks: Iterable[asyncio.Future[Any]]) -> None:
    """Cancels tasks, and returns when they have ended; how they did stays with them.

    To cancel once is not enough: `asyncio.wait_for` of Python 3.11 forgets a cancellation that comes together
    with the result it waits for, as does the flush of nats-py, and the task goes on.
    """
    pending = set(tasks)
    while pending:
        for task in pending:
            task.cancel()
        done, pending = await asyncio.wait(pending, timeout=AGAIN_S)
        for task in done:
            if not task.cancelled():
                task.exception()  # seen: asyncio does not complain of it
