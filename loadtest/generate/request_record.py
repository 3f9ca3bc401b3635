"""The record of one request: when it was meant to start, when it did, and what was seen of it.

Times are seconds on the clock of the run, which is 0 at its start.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field

OK = ""
TIMED_OUT = "no_reply"
"""No reply came, and the mesh does not know how the request ended."""
LOST = "lost"
"""No reply came, and the mesh knows nothing of the request, although it took it."""


@dataclass(slots=True)
class RequestRecord:
    """What is known of one request. `gaps_ms` are the gaps between chunks of one answer, of all its answers;
    `fetched` says that its reply was lost and its result was asked for afterwards."""

    number: int
    workload: str
    intended_s: float
    sent_s: float = math.nan
    first_s: float = math.nan
    done_s: float = math.nan
    error: str = OK
    tokens: int = 0
    chunks: int = 0
    results: int = 0
    fetched: bool = False
    gaps_ms: list[float] = field(default_factory=list)
    on_end: Callable[[], None] | None = None
    _last_s: dict[str, float] = field(default_factory=dict)

    @property
    def open(self) -> bool:
        """Whether it has been sent and no outcome is known yet."""
        return math.isnan(self.done_s)

    def chunk(self, agent: str, at_s: float) -> None:
        """A piece of an answer has come."""
        self.chunks += 1
        if math.isnan(self.first_s):
            self.first_s = at_s
        before_s = self._last_s.get(agent)
        if before_s is not None:
            self.gaps_ms.append((at_s - before_s) * 1000)
        self._last_s[agent] = at_s

    def end(self, at_s: float, error: str = OK, tokens: int = 0) -> None:
        """Its outcome is known. Only the first one counts; that there were more is counted by `results`."""
        if not self.open:
            return
        self.done_s, self.error, self.tokens = at_s, error, tokens
        self._last_s.clear()
        if self.on_end is not None:
            self.on_end()
