"""A pipeline of two nodes and llama.cpp RPC on two nodes, in turns: the same model, cut, cores and streams.

A node is one core. Both sides decode as many tokens after prompts as long, and the rate is that of the time
in which all streams decode. llama.cpp RPC is measured in two ways, of which the faster one counts at each
number of streams: as it is, which evaluates a step as one batch, one device after the other, and with two
batches to a step (`--ubatch-size`), on which the devices can work at the same time. Broker, router and client
of the pipeline have both cores, and so has the batched bench.
"""

from __future__ import annotations

import os
import statistics
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from infra.demo_models.bench_model import write_bench_model
from loadtest.bench.inference.pipeline_nodes import Nodes, nodes, tokens_of
from loadtest.bench.report import Target, at_least, rounds_within
from loadtest.peers.environments import CannotStart
from loadtest.peers.llama_rpc.batched_bench import RpcNodes, Work, rpc_nodes
from loadtest.peers.llama_rpc.build import Programs, programs, require
from schemas.pipelines.plan import PipelinePlan

Raw = dict[str, Any]

STREAMS = (1, 2, 4, 8, 16, 32)
CORES = (0, 1)
NAMES = ("node-0", "node-1")
SIZE = {"slots": max(STREAMS), "context_tokens": 256}
BUDGET_S, MOST_ROUNDS = 720.0, 5
LEAST_OF_ONE, LEAST, OVERLAPPING = 1.0, 1.4, 4
"""So many times RPC with one stream, and with so many streams or more; with two there is no aim."""
WHOLE, HALVES = "a step as one batch", "a step in two batches"
PEER = "llama.cpp rpc"
RATIO = "choir over llama.cpp rpc"


async def in_turns(folder: Path) -> Raw:
    """The figures of both; or why there are none of the peer, in which case nothing is measured."""
    try:
        require(("taskset",))
        require_cores(os.sched_getaffinity(0))
        return await _measured(folder, programs())
    except CannotStart as error:
        return {PEER: f"could not be started: {error}"}


def require_cores(usable: set[int]) -> None:
    """CannotStart if a node's core is not there."""
    if lacking := [core for core in CORES if core not in usable]:
        raise CannotStart(f"each node has a core of its own, and core {lacking[0]} may not be used here")


async def _measured(folder: Path, built: Programs) -> Raw:
    model = write_bench_model()
    async with nodes(folder, model, SIZE) as ours:
        for name, core in zip(NAMES, CORES, strict=True):
            ours.start(name, core)
        plan = await ours.place(*NAMES)
        layers = tuple(stage.end_layer - stage.first_layer for stage in plan.stages)
        async with rpc_nodes(built, CORES, layers) as theirs:
            found = await _rounds(Both(ours, plan, theirs, model))
    return {"layers": "/".join(str(count) for count in layers), "rounds": found.rounds, **raw(found, built)}


@dataclass(frozen=True)
class Both:
    """The two sides, running."""

    ours: Nodes
    plan: PipelinePlan
    theirs: RpcNodes
    model: Path


@dataclass
class Rates:
    """Tokens per second at each number of streams, round by round: the pipeline's, and RPC's by its ways."""

    ours: dict[int, list[float]] = field(default_factory=lambda: defaultdict(list))
    theirs: dict[str, dict[int, list[float]]] = field(
        default_factory=lambda: {WHOLE: defaultdict(list), HALVES: defaultdict(list)}
    )
    rounds: int = 0

    def ratios(self, streams: int) -> list[float]:
        """Of each round, ours over the way of RPC with the higher median."""
        best = max(
            (rates[streams] for rates in self.theirs.values() if rates[streams]), key=statistics.median
        )
        return [ours / its for ours, its in zip(self.ours[streams], best, strict=True)]


async def _rounds(both: Both) -> Rates:
    """The pipeline's first round does not count: its stages still learn how many sequences go into a step."""
    prompts = {streams: (await both.ours.decode(both.plan, streams)).prompt_tokens for streams in STREAMS}
    found = Rates()
    for number in rounds_within(BUDGET_S, MOST_ROUNDS):
        for streams in STREAMS:
            work = Work(streams, prompts[streams], tokens_of(streams))
            if number % 2:
                await _their_turn(both, work, found)
                await _our_turn(both, streams, found)
            else:
                await _our_turn(both, streams, found)
                await _their_turn(both, work, found)
        found.rounds += 1
    return found


async def _our_turn(both: Both, streams: int, found: Rates) -> None:
    found.ours[streams].append((await both.ours.decode(both.plan, streams)).tokens_per_s)


async def _their_turn(both: Both, work: Work, found: Rates) -> None:
    for way, most_rows in ways(work.streams).items():
        rate = await both.theirs.tokens_per_s(both.model, work, most_rows)
        found.theirs[way][work.streams].append(rate)


def ways(streams: int) -> dict[str, int | None]:
    """The ways of RPC with so many streams, and the most rows of a batch; one stream cannot be halved."""
    return {WHOLE: None} if streams == 1 else {WHOLE: None, HALVES: (streams + 1) // 2}


def raw(found: Rates, built: Programs) -> Raw:
    """The figures as they are told: medians over the rounds, and the quartiles of the ratio."""
    streams = sorted(found.ours)
    theirs = {f"{PEER}, {way}": _medians(rates) for way, rates in found.theirs.items()}
    return {
        "choir": _medians(found.ours),
        **theirs,
        f"{PEER} version": f"of llama-cpp-python {built.version}",
        RATIO: {str(n): statistics.median(found.ratios(n)) for n in streams},
        f"{RATIO}, quartiles": {str(n): _quartiles(found.ratios(n)) for n in streams},
    }


def targets(figures: Raw) -> tuple[Target, ...]:
    """What the ratios have to be; none where there is no ratio."""
    ratios = {int(n): ratio for n, ratio in figures.get(RATIO, {}).items()}
    least = {n: LEAST_OF_ONE if n == 1 else LEAST for n in ratios if n == 1 or n >= OVERLAPPING}
    return tuple(at_least(f"choir_over_llama_rpc_{n}", ratios[n], least[n]) for n in least)


def _medians(rates: dict[int, list[float]]) -> dict[str, float]:
    return {f"tokens_per_s_at_{n}": statistics.median(found) for n, found in sorted(rates.items()) if found}


def _quartiles(ratios: Sequence[float]) -> list[float]:
    if len(ratios) == 1:
        return [round(ratios[0], 3)] * 3
    return [round(value, 3) for value in statistics.quantiles(ratios, n=4, method="inclusive")]
