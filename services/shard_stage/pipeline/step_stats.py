"""Step statistics: what a stage did since it was last asked, and where the time went."""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import dataclass, field

from services.shard_stage.pipeline.recent_steps import RecentSteps

MOST_REQUESTS = 64


@dataclass
class Steps:
    """Sums over some steps; durations in nanoseconds."""

    steps: int = 0
    batch_size: int = 0
    tokens: int = 0
    compute_ns: int = 0
    hop_ns: int = 0
    hops: int = 0
    waiting_ns: int = 0
    requests: set[str] = field(default_factory=set)


class StepStats:
    """Counted on the inference thread, taken from any other. `progress` grows with every message that arrives
    and every step that is done, and is never taken; `recent` are the times of the last steps in which every
    sequence had one token."""

    def __init__(self) -> None:
        self._steps = Steps()
        self._idle_since_ns: int | None = None
        self.recent = RecentSteps()
        self.progress = 0

    def arrived(self, sent_ns: int) -> None:
        """A message has arrived that was sent at `sent_ns`, by the sender's clock."""
        self._steps.hop_ns += max(0, time.time_ns() - sent_ns)
        self._steps.hops += 1
        self.progress += 1

    def idle(self) -> None:
        """From now on there is nothing to do."""
        self._idle_since_ns = time.perf_counter_ns()

    def busy(self) -> None:
        """There is something to do again."""
        if self._idle_since_ns is not None:
            self._steps.waiting_ns += time.perf_counter_ns() - self._idle_since_ns
            self._idle_since_ns = None

    def stepped(self, sequences: int, tokens: int, compute_ns: int, requests: Iterable[str]) -> None:
        """A step of so many sequences is done."""
        sums = self._steps
        sums.steps += 1
        self.progress += 1
        sums.batch_size += sequences
        sums.tokens += tokens
        sums.compute_ns += compute_ns
        if sequences == tokens:
            self.recent.note(sequences, compute_ns)
        if len(sums.requests) < MOST_REQUESTS:
            sums.requests.update(requests)

    def take(self) -> Steps:
        """The sums so far; counting begins anew."""
        taken, self._steps = self._steps, Steps()
        return taken
