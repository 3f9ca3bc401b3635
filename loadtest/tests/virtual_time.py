"""An event loop whose time is computed: whoever sleeps is woken at once, and the clock says so much later."""

from __future__ import annotations

import asyncio
import selectors
from collections.abc import Coroutine
from types import SimpleNamespace
from typing import Any, TypeVar

import pytest

STEP_S = 1e-9
"""Each look at the clock shows it later than the one before, however small a difference is waited for."""

ResultT = TypeVar("ResultT")


class _Selector(selectors.DefaultSelector):
    """Waits for nothing: the time that it was to wait passes on the clock."""

    now_s = 0.0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        ready = super().select(0)
        if not ready and timeout is not None:
            self.now_s += max(timeout, STEP_S)
        return ready


class VirtualLoop(asyncio.SelectorEventLoop):
    """Its timers are exact, however busy the host is."""

    def __init__(self) -> None:
        self._virtual = _Selector()
        super().__init__(self._virtual)

    def time(self) -> float:
        """Seconds since the loop was made."""
        return self._virtual.now_s


def simulated(work: Coroutine[Any, Any, ResultT], monkeypatch: pytest.MonkeyPatch) -> ResultT:
    """What `work` returns, with the generator's clock on virtual time."""
    loop = VirtualLoop()
    monkeypatch.setattr("loadtest.generate.generator.time", SimpleNamespace(perf_counter=loop.time))
    try:
        return loop.run_until_complete(work)
    finally:
        loop.close()
