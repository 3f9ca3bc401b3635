"""The circuit breaker of a server: closed, open or on trial, by the outcome of checks and tasks. Pure.

Closed: it works. Open: it does not, until some time has passed. Half-open: it is being tried. Times are
seconds of a clock that only goes forward.
"""

from __future__ import annotations

from schemas.errors import ChoirError, ErrorBody
from schemas.nodes.workers import CircuitState
from services.agent.settings import WorkersSection


class Circuit:
    """One server's state. A new one is open and due at once: nobody has seen it yet."""

    def __init__(self, settings: WorkersSection) -> None:
        self._settings = settings
        self._failed_looks = 0
        self._failed_tasks = 0
        self._wait_s = settings.open_for_s
        self._due_s = 0.0
        self.state: CircuitState = "open"
        self.seen = False
        self.last_error: ErrorBody | None = None

    @property
    def failures(self) -> int:
        """How many have failed in a row."""
        return max(self._failed_looks, self._failed_tasks)

    def due_in(self, now_s: float) -> float:
        """Seconds until an open circuit is to be tried."""
        return max(0.0, self._due_s - now_s)

    def tried(self) -> None:
        """It is being tried now."""
        self.state = "half_open"

    def look_succeeded(self) -> None:
        """It answers. That it works as well only its tasks show: they are counted apart."""
        self._failed_looks = 0
        self.seen = True
        if self.state != "closed":
            self.state = "closed"
            self._failed_tasks = 0
            self._wait_s = self._settings.open_for_s

    def look_failed(self, error: ChoirError, now_s: float) -> None:
        """It does not answer, or a trial of it failed."""
        self._failed_looks += 1
        self._failed(error, now_s)

    def task_succeeded(self) -> None:
        """It has done what it was asked to."""
        self._failed_tasks = 0

    def task_failed(self, error: ChoirError, now_s: float) -> None:
        """It has not."""
        self._failed_tasks += 1
        self._failed(error, now_s)

    def _failed(self, error: ChoirError, now_s: float) -> None:
        self.last_error = error.body()
        tried = self.state != "closed"
        if tried or self.failures >= self._settings.failures_to_open:
            if tried and self.seen:
                self._wait_s = min(2 * self._wait_s, self._settings.open_for_longest_s)
            self.state = "open"
            self._due_s = now_s + self._wait_s
