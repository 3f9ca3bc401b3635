"""Engines on the same cores, together and beside another program, against one engine alone.

Every contender has processes of its own, which stay: what an engine has learnt of its neighbours is true
still when its turn comes again. They take turns, and ratios are medians over rounds. The first turn of each
is not counted: in it an engine learns how many threads its steps should have.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from typing import NamedTuple

from infra.demo_models.bench_model import write_bench_model
from loadtest.bench.inference.engine_alone import EngineNode, rate
from loadtest.bench.report import Report, at_least, rounds_within
from services.engine.engine import usable_cores

STREAMS = (1, 4, 16)
"""Of each engine."""
CORES = tuple(range(min(2, usable_cores())))
SLOTS = 16
CONTEXT_TOKENS = 512
TOKENS = 48
ROUNDS = 7
BUDGET_S = 480.0
LEAST_TOGETHER = 0.9
SPINNING = "import os, sys; os.sched_setaffinity(0, map(int, sys.argv[1:]))\nwhile True: pass"


class Contender(NamedTuple):
    """Engines that decode at the same time; `beside_another`: and a program that does nothing but compute."""

    engines: tuple[EngineNode, ...]
    beside_another: bool = False

    def tokens_per_s(self, model: Path, streams: int) -> float:
        """The rate of all of them, with so many streams each, while all of them decode."""
        with ExitStack() as opened:
            if self.beside_another:
                opened.enter_context(_spinning())
            begun = [engine.begin(model, streams, TOKENS) for engine in self.engines]
            return rate([own for times in begun for own in times.result()])

    def threads(self, model: Path) -> list[int]:
        """Those of the latest step of each."""
        return [engine.threads(model) for engine in self.engines]


Rates = dict[int, dict[str, list[float]]]
"""Tokens per second, in each round, by the number of streams and the contender's name."""


def run() -> Report:
    """Measures some minutes."""
    model = write_bench_model()
    with ExitStack() as opened:
        contenders = _contenders(opened)
        rates, threads = _in_turns(model, contenders)
    together = {n: _ratio(rates[n], "together", "alone") for n in STREAMS}
    return Report(
        bench="shared-cores",
        raw={
            "tokens_per_s": {
                str(n): {name: statistics.median(found) for name, found in rates[n].items()} for n in STREAMS
            },
            "together_over_alone": {str(n): together[n] for n in STREAMS},
            "together_over_fixed": {str(n): _ratio(rates[n], "together", "together_fixed") for n in STREAMS},
            "beside_over_fixed": {str(n): _ratio(rates[n], "beside", "beside_fixed") for n in STREAMS},
            "threads": threads,
            "cores": len(CORES),
            "rounds": len(rates[STREAMS[0]]["alone"]),
        },
        targets=tuple(
            at_least(f"together_over_alone_{n}", statistics.median(together[n]), LEAST_TOGETHER)
            for n in STREAMS
        ),
        notes=(
            "together: two engines; fixed: each step has all threads; halved: each engine has half the "
            "threads; beside: one engine and a program that does nothing but compute",
            "ratios: quartiles over rounds in which all take turns",
        ),
    )


def _contenders(opened: ExitStack) -> dict[str, Contender]:
    def engines(count: int, *, threads: int = len(CORES), fixed: bool = False) -> tuple[EngineNode, ...]:
        nodes = [
            EngineNode(CORES, SLOTS, CONTEXT_TOKENS, threads=threads, fixed_threads=fixed)
            for _ in range(count)
        ]
        return tuple(opened.enter_context(closing(node)) for node in nodes)

    fixed = engines(2, fixed=True)
    return {
        "alone": Contender(engines(1)),
        "together": Contender(engines(2)),
        "together_fixed": Contender(fixed),
        "together_halved": Contender(engines(2, threads=max(1, len(CORES) // 2), fixed=True)),
        "beside": Contender(engines(1), beside_another=True),
        "beside_fixed": Contender(fixed[:1], beside_another=True),
    }


def _in_turns(model: Path, contenders: dict[str, Contender]) -> tuple[Rates, dict[str, dict[str, list[int]]]]:
    rates: Rates = {streams: {name: [] for name in contenders} for streams in STREAMS}
    threads: dict[str, dict[str, list[int]]] = {}
    for streams in STREAMS:
        for contender in contenders.values():
            contender.tokens_per_s(model, streams)
    for _ in rounds_within(BUDGET_S, ROUNDS):
        for streams in STREAMS:
            for name, contender in contenders.items():
                rates[streams][name].append(contender.tokens_per_s(model, streams))
            threads[str(streams)] = {name: one.threads(model) for name, one in contenders.items()}
    return rates, threads


def _ratio(rates: dict[str, list[float]], over: str, under: str) -> list[float]:
    """Quartiles over rounds."""
    ratios = [one / other for one, other in zip(rates[over], rates[under], strict=True)]
    if len(ratios) < 2:
        return ratios * 3
    return [round(value, 3) for value in statistics.quantiles(ratios, n=4, method="inclusive")]


@contextmanager
def _spinning() -> Iterator[None]:
    """A program on one of the cores, whichever, that does nothing but compute."""
    process = subprocess.Popen([sys.executable, "-c", SPINNING, *map(str, CORES)])
    try:
        yield
    finally:
        process.kill()
        process.wait()
