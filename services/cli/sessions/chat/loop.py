"""An event loop that runs now and then, between lines that are typed, and what Ctrl-C does meanwhile.

asyncio's own handling of Ctrl-C raises KeyboardInterrupt inside the loop once the task at hand is done,
and a loop that was left so does not run again. Here Ctrl-C cancels what runs, and raises
KeyboardInterrupt only while nothing does.
"""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Coroutine
from types import FrameType, TracebackType
from typing import Any, TypeVar

T = TypeVar("T")


class InterruptedLoop:
    """A context manager; `run` may be called again and again within it."""

    def __init__(self) -> None:
        self._runner = asyncio.Runner()
        self._running = False
        self._open_interrupt = False
        self._task: asyncio.Task[Any] | None = None

    def __enter__(self) -> InterruptedLoop:
        self._runner.__enter__()
        self._before = signal.signal(signal.SIGINT, self._on_ctrl_c)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._running = True
        self._runner.__exit__(kind, error, trace)
        signal.signal(signal.SIGINT, self._before)

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """Its result. Ctrl-C cancels it; unless it bears that and goes on, KeyboardInterrupt is raised."""
        self._running = True
        try:
            result = self._runner.run(self._remembered(work))
        except asyncio.CancelledError:
            raise KeyboardInterrupt from None
        finally:
            came_too_late, self._open_interrupt = self._open_interrupt, False
            self._task, self._running = None, False
        if came_too_late:
            raise KeyboardInterrupt
        return result

    async def _remembered(self, work: Coroutine[Any, Any, T]) -> T:
        self._task = asyncio.current_task()
        return await work

    def _on_ctrl_c(self, _number: int, _frame: FrameType | None) -> None:
        if not self._running:
            raise KeyboardInterrupt
        self._open_interrupt = True
        if self._task is not None:
            self._runner.get_loop().call_soon_threadsafe(self._cancel, self._task)

    def _cancel(self, task: asyncio.Task[Any]) -> None:
        if task.cancel():
            self._open_interrupt = False
