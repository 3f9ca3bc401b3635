"""Cuts a statement off from another thread: whatever works for it at that moment is told to stop."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

from schemas.errors import ChoirError, DeadlineExceeded, NotReady
from services.metrics.query.sandbox import FIELD


class Stoppable(Protocol):
    """What can be stopped from any thread: a cursor, a process."""

    def interrupt(self) -> None:
        """Stops what it is at."""


class CutOff:
    """Whether one statement was cut off, and who works for it."""

    def __init__(self) -> None:
        self._in_hand = threading.Lock()
        self._working: list[Stoppable] = []
        self._cut = False

    @property
    def was_cut(self) -> bool:
        """Whether its time is over, or the service stops."""
        return self._cut

    def cut(self) -> None:
        """The statement does not begin, or ends if it runs at this moment."""
        with self._in_hand:
            self._cut = True
            for each in self._working:
                each.interrupt()

    @contextmanager
    def reaches(self, work: Stoppable) -> Iterator[None]:
        """Within it `cut` stops `work`. Raises DeadlineExceeded if that came first."""
        with self._in_hand:
            if self._cut:
                raise self.error()
            self._working.append(work)
        try:
            yield
        finally:
            with self._in_hand:
                self._working.remove(work)

    def error(self) -> ChoirError:
        """Why a statement was stopped: by its time, or because the database was closed meanwhile."""
        if self._cut:
            return DeadlineExceeded(f"{FIELD}: it was cut off at its time limit", field=FIELD)
        return NotReady("the event database is opened again, try again", retry_after_s=0.5)
