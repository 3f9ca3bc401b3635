"""The plan of a run: which requests, when, and which of several generator processes sends them."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from itertools import count, islice, takewhile

from loadtest.faults import WrongOption
from loadtest.generate.arrivals import Rate, arrivals
from loadtest.generate.prompts import PromptOptions, prompts
from loadtest.generate.workloads import AskOptions, Fields, ask_fields, workloads


@dataclass(frozen=True, slots=True)
class Planned:
    """One request. `start_s` counts from the start of the run; it is nan in a closed loop."""

    number: int
    start_s: float
    workload: str
    fields: Fields


@dataclass(frozen=True)
class LoadPlan:
    """A run. With `concurrency` so many users each ask again when they are answered (closed loop);
    otherwise requests start at the times of the arrival process, whether others are answered or not (open
    loop). It ends after `requests`, or without that after `duration_s`. Figures leave out the first
    `warm_up_s` seconds. `max_in_flight` is how many requests may be open at once, as with a pool of
    connections: those that wait for a place start late."""

    run: str
    ask: AskOptions
    mix: dict[str, float] = field(default_factory=lambda: {"single": 1.0})
    arrivals: str = "poisson"
    rate: Rate = field(default_factory=lambda: Rate(10.0))
    concurrency: int | None = None
    duration_s: float = 60.0
    requests: int | None = None
    warm_up_s: float = 0.0
    prompt: PromptOptions = field(default_factory=PromptOptions)
    seed: int = 0
    processes: int = 1
    max_in_flight: int | None = None

    def __post_init__(self) -> None:
        whole = {"concurrency": self.concurrency, "requests": self.requests}
        whole |= {"processes": self.processes, "max-in-flight": self.max_in_flight}
        for name, number in whole.items():
            if number is not None and number < 1:
                raise WrongOption(f"--{name} is {number}: it has to be 1 or more")
        if not (math.isfinite(self.duration_s) and self.duration_s > 0):
            raise WrongOption(f"--duration is {self.duration_s:g}: it has to be above 0 seconds")
        if not 0 <= self.warm_up_s < self.duration_s:
            raise WrongOption(f"--warm-up is {self.warm_up_s:g} of {self.duration_s:g} seconds: too long")

    def share(self, process: int) -> Iterator[Planned]:
        """What one of the processes sends, in order. All processes draw the same requests; of `processes`
        requests in a row each takes one, so their number does not change what is asked."""
        return islice(self._all(), process, None, self.processes)

    def users(self, process: int) -> int:
        """How many users of a closed loop one of the processes plays."""
        total = self.concurrency or 0
        return total // self.processes + (process < total % self.processes)

    def open_at_once(self, process: int) -> int | None:
        """How many requests one of the processes may have open."""
        if self.max_in_flight is None:
            return None
        return max(1, self.max_in_flight // self.processes + (process < self.max_in_flight % self.processes))

    def _all(self) -> Iterator[Planned]:
        numbers = range(self.requests) if self.requests is not None else count()
        drawn = zip(
            numbers,
            self._starts(),
            workloads(self.mix, self.seed),
            prompts(self.prompt, self.seed),
            strict=False,
        )
        for number, start_s, workload, prompt in drawn:
            yield Planned(number, start_s, workload, ask_fields(workload, self.ask, number, prompt))

    def _starts(self) -> Iterator[float]:
        if self.concurrency is not None:
            return (math.nan for _ in count())
        rate = replace(self.rate, ramp_s=self.duration_s) if self.arrivals == "ramp" else self.rate
        starts = arrivals(self.arrivals, rate, self.seed)
        if self.requests is not None:
            return starts
        return takewhile(lambda start_s: start_s < self.duration_s, starts)
