"""The tasks of a supervisor that look after something as long as the mesh runs."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

from services.chassis.process.cancelling import ended


class Background:
    """Tasks with names; `say` is told of one that ends by an error."""

    def __init__(self, say: Callable[[str], None]) -> None:
        self._say = say
        self._tasks: set[asyncio.Task[None]] = set()

    def start(self, work: Coroutine[Any, Any, None], name: str) -> asyncio.Task[None]:
        """A task; `name` is what it looks after."""
        task = asyncio.create_task(work, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._is_done)
        return task

    async def stop(self) -> None:
        """Cancels all, and returns when they have ended."""
        await ended(self._tasks)

    def _is_done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        error = None if task.cancelled() else task.exception()
        if error is not None:
            self._say(f"{task.get_name()} is looked after no more: {type(error).__name__}: {error}")
