"""The thread that makes prompts ready beside the event loop: template, tokens, grammar."""

from __future__ import annotations

import asyncio
import queue
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Generic, TypeVar

T = TypeVar("T")


@dataclass(frozen=True)
class Job(Generic[T]):
    """Something to be done, and who waits for it. `undo` takes back what nobody waits for any more."""

    work: Callable[[], T]
    undo: Callable[[T], object]
    loop: asyncio.AbstractEventLoop
    outcome: asyncio.Future[T]

    def run(self) -> None:
        """On the thread. What is not waited for any more is not begun."""
        if self.outcome.cancelled():
            return
        try:
            result = self.work()
        except Exception as error:  # noqa: BLE001  (it is raised where it is waited for)
            self._call_in_loop(partial(self._fail, error))
        else:
            self._call_in_loop(partial(self._deliver, result))

    def _call_in_loop(self, callback: Callable[[], None]) -> None:
        if not self.loop.is_closed():
            self.loop.call_soon_threadsafe(callback)

    def _deliver(self, result: T) -> None:
        if self.outcome.done():
            self.undo(result)
        else:
            self.outcome.set_result(result)

    def _fail(self, error: Exception) -> None:
        if not self.outcome.done():
            self.outcome.set_exception(error)


class Intake(Generic[T]):
    """Does one thing after another, in the order in which they came.

    Its thread is a daemon: one that never comes back from a template does not keep the process from ending.
    """

    def __init__(self, name: str) -> None:
        self._jobs: queue.SimpleQueue[Job[T] | None] = queue.SimpleQueue()
        self._waiting: set[asyncio.Future[T]] = set()
        self._began_s: float | None = None
        threading.Thread(target=self._run, name=name, daemon=True).start()

    async def do(self, work: Callable[[], T], undo: Callable[[T], object]) -> T:
        """What `work` returns, or raises. If the caller is cancelled, `undo` gets the result."""
        loop = asyncio.get_running_loop()
        outcome: asyncio.Future[T] = loop.create_future()
        self._waiting.add(outcome)
        outcome.add_done_callback(self._waiting.discard)
        self._jobs.put(Job(work, undo, loop, outcome))
        try:
            return await outcome
        except asyncio.CancelledError:
            if not outcome.cancelled() and outcome.exception() is None:
                undo(outcome.result())  # it came in the moment in which the caller was cancelled
            raise

    def busy_s(self) -> float:
        """For how long the thread has been at its present job, in seconds; 0 while it waits."""
        began_s = self._began_s
        return 0.0 if began_s is None else time.monotonic() - began_s

    def fail(self, error: Exception) -> None:
        """Raises an error for everybody who waits."""
        for outcome in list(self._waiting):
            if not outcome.done():
                outcome.set_exception(error)

    def close(self) -> None:
        """Ends the thread after what is in its queue."""
        self._jobs.put(None)

    def _run(self) -> None:
        while (job := self._jobs.get()) is not None:
            self._began_s = time.monotonic()
            job.run()
            self._began_s = None
