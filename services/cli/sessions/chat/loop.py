"""An event loop that runs now and then, between lines that are typed, and what Ctrl-C does meanwhile.

asyncio's own handling of Ctrl-C raises KeyboardInterrupt inside the loop once the task at hand is done,
and a loop that was left so does not run again. Here Ctrl-C cancels what runs, and raises KeyboardInterrupt
only while a line is read. One that comes in between is kept for what comes next: raised anywhere, it would
end what nobody meant to end.
"""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable, Coroutine
from types import FrameType, TracebackType
from typing import Any, TypeVar

T = TypeVar("T")


class InterruptedLoop:
    """A context manager; `run` and `read` may be called again and again within it."""

    def __init__(self) -> None:
        self._runner = asyncio.Runner()
        self._reading = False
        self._open_interrupt = False
        self._task: asyncio.Task[Any] | None = None

    def __enter__(self) -> InterruptedLoop:
        self._runner.__enter__()
        self._before = signal.signal(signal.SIGINT, self._on_ctrl_c)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._runner.__exit__(kind, error, trace)
        signal.signal(signal.SIGINT, self._before)

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """Its result. Ctrl-C cancels it; unless it bears that and goes on, KeyboardInterrupt is raised."""
        try:
            result = self._runner.run(self._remembered(work))
        except asyncio.CancelledError:
            raise KeyboardInterrupt from None
        finally:
            came_too_late, self._open_interrupt = self._open_interrupt, False
            self._task = None
        if came_too_late:
            raise KeyboardInterrupt
        return result

    def read(self, line: Callable[[], str]) -> str:
        """What `line` gives. Ctrl-C meanwhile, or just before, raises KeyboardInterrupt."""
        try:
            self._reading = True
            if self._open_interrupt:
                raise KeyboardInterrupt
            return line()
        finally:
            self._reading = self._open_interrupt = False

    async def _remembered(self, work: Coroutine[Any, Any, T]) -> T:
        self._task = asyncio.current_task()
        if self._open_interrupt and self._task is not None:
            self._cancel(self._task)
        return await work

    def _on_ctrl_c(self, _number: int, _frame: FrameType | None) -> None:
        if self._reading:
            self._reading = False
            raise KeyboardInterrupt
        self._open_interrupt = True
        if self._task is not None:
            self._runner.get_loop().call_soon_threadsafe(self._cancel, self._task)

    def _cancel(self, task: asyncio.Task[Any]) -> None:
        if task.cancel():
            self._open_interrupt = False
