"""Measures how long a task has questions with the mesh, without the time that it waits in the client."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager


class Stopwatch:
    """Runs while at least one question is on its way; several at once count once."""

    def __init__(self) -> None:
        self._open = 0
        self._since_s = 0.0
        self.seconds = 0.0

    @contextmanager
    def running(self) -> Iterator[None]:
        """A question is on its way."""
        if self._open == 0:
            self._since_s = time.monotonic()
        self._open += 1
        try:
            yield
        finally:
            self._open -= 1
            if self._open == 0:
                self.seconds += time.monotonic() - self._since_s
