"""The background loops of a service: if one ends without being told to, the service ends, and says why.

A service without one of its loops is worse than none: it looks alive and does not do its part. One that has
ended is started again by whoever runs it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

from services.chassis.logs import get_logger

log = get_logger("chassis.supervise")


class Loops:
    """The loops of one process. `on_failure` is called once, when the first of them has failed."""

    def __init__(self, on_failure: Callable[[], None] | None = None) -> None:
        self._on_failure = on_failure
        self._running: set[asyncio.Task[None]] = set()
        self.failure: str | None = None

    def start(self, work: Coroutine[Any, Any, None], name: str) -> asyncio.Task[None]:
        """Runs `work`, which goes on until it is cancelled; any other end of it is a failure."""
        task = asyncio.create_task(work, name=name)
        self._running.add(task)
        task.add_done_callback(self._ended)
        return task

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._running.discard(task)
        if task.cancelled():
            return
        error = task.exception()
        why = "it ended by itself" if error is None else f"{type(error).__name__}: {error}"
        log.critical("a loop failed, so the service ends", loop=task.get_name(), why=why, exc_info=error)
        if self.failure is None:
            self.failure = f"its loop {task.get_name()!r} failed: {why}"
            if self._on_failure is not None:
                self._on_failure()


def log_failure(task: asyncio.Task[Any]) -> None:
    """For `add_done_callback` of a short step: its error is told, since nobody awaits it."""
    if not task.cancelled() and (error := task.exception()) is not None:
        log.error("a step failed", step=task.get_name(), why=repr(error), exc_info=error)
