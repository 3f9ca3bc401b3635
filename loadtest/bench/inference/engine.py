"""The engine against llama-cpp-python as it is shipped: same model, same cores, each in a process of its own.

The other side is a bare loop of llama_decode (`llama_loop.py`) in an environment of its own: the library as
its package builds it by default, with OpenMP, and with nothing set in the environment. Both decode as many
tokens after the very same prompts, since a step takes longer with each token before it. The engine does all
of its work besides, events included. The two take turns, and a turn is short, because what else the machine
does changes; the ratio is the median over rounds. Memory is measured in a process of its own.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import resource
import statistics
import subprocess
from concurrent.futures import ProcessPoolExecutor
from contextlib import closing
from pathlib import Path
from types import TracebackType
from typing import Self

from infra.demo_models.bench_model import write_bench_model
from loadtest.bench.inference import llama_loop
from loadtest.bench.inference.engine_alone import EngineNode
from loadtest.bench.report import Report, Target, at_least, at_most, installed_versions
from loadtest.peers.environments import CannotStart, environment
from schemas.requests.sampling import Sampling
from services.engine import Engine
from services.engine.decode.context import cache_bytes_per_token
from services.engine.engine import usable_cores
from services.engine.model.build import features

STREAMS = (1, 4, 16)
THREADS = 2
SLOTS = 16
CONTEXT_TOKENS = 1024
BATCH_TOKENS = 512
STEPS = 24
ROUNDS = 15
LEAST_RATIO = 0.95
MEGABYTE = 1e6
MOST_EXTRA_MB = 250.0
MEMORY_PROMPT_TOKENS = 80
WAITING_VARIABLES = ("OMP_", "GOMP_", "KMP_")

Speeds = dict[int, list[tuple[float, float]]]
"""Pairs (engine, llama-cpp-python) of tokens per second, for each number of streams."""


class Shipped:
    """A process with llama-cpp-python as it is shipped; a context manager."""

    def __init__(self, path: Path) -> None:
        """Makes the environment first, if it is not there: that compiles llama.cpp for some minutes."""
        library = f"llama-cpp-python=={installed_versions()['llama-cpp-python']}"
        python = environment("llama-cpp-python", [library]) / "bin" / "python"
        size = [str(number) for number in (THREADS, SLOTS, CONTEXT_TOKENS)]
        self._process = subprocess.Popen(
            [str(python), str(Path(llama_loop.__file__)), str(path), *size],
            env={name: value for name, value in os.environ.items() if not name.startswith(WAITING_VARIABLES)},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )

    def tokens_per_s(self, prompts: list[list[int]]) -> float:
        """The rate of these sequences while all of them decode; CannotStart if the process has ended."""
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.write(json.dumps({"prompts": prompts, "steps": STEPS}) + "\n")
        self._process.stdin.flush()
        if not (line := self._process.stdout.readline()):
            raise CannotStart(f"llama-cpp-python as shipped ended with exit code {self._process.wait()}")
        return float(line)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.kill()
        self._process.wait()


def run() -> Report:
    """Measures some minutes."""
    path = write_bench_model()
    memory = _in_fresh_process(path)
    speeds = _in_turns(path)
    ratios = {
        streams: statistics.median(ours / theirs for ours, theirs in pairs)
        for streams, pairs in speeds.items()
    }
    return Report(
        bench="engine",
        raw={
            "engine_tokens_per_s": {str(n): statistics.median(own for own, _ in speeds[n]) for n in STREAMS},
            "shipped_tokens_per_s": {str(n): statistics.median(its for _, its in speeds[n]) for n in STREAMS},
            "ratio": {str(streams): ratio for streams, ratio in ratios.items()},
            "ratio_quartiles": {str(n): _quartiles([own / its for own, its in speeds[n]]) for n in STREAMS},
            "rounds": ROUNDS,
            "threads": THREADS,
            "built_with": sorted(features()),
            "memory_mb": memory,
        },
        targets=(
            *(at_least(f"engine_over_shipped_{n}", ratios[n], LEAST_RATIO) for n in STREAMS),
            _memory_target(memory),
        ),
        notes=("ratio: median over rounds of the engine and llama-cpp-python as shipped, taking turns",),
    )


def _in_turns(path: Path) -> Speeds:
    speeds: Speeds = {streams: [] for streams in STREAMS}
    cores = tuple(range(usable_cores()))[:THREADS]
    with closing(EngineNode(cores, SLOTS, CONTEXT_TOKENS)) as engine, Shipped(path) as shipped:
        prompts = {streams: engine.prompts(path, streams) for streams in STREAMS}
        for streams in STREAMS:  # both load the model, and see each size once before it counts
            engine.tokens_per_s(path, streams, STEPS)
            shipped.tokens_per_s(prompts[streams])
        for number in range(ROUNDS):
            for streams in STREAMS:
                speeds[streams].append(_pair(engine, shipped, path, prompts[streams], number))
    return speeds


def _pair(
    engine: EngineNode, shipped: Shipped, path: Path, prompts: list[list[int]], number: int
) -> tuple[float, float]:
    """A round; in every other one the engine comes last."""
    if number % 2:
        theirs = shipped.tokens_per_s(prompts)
        return engine.tokens_per_s(path, len(prompts), STEPS), theirs
    ours = engine.tokens_per_s(path, len(prompts), STEPS)
    return ours, shipped.tokens_per_s(prompts)


def _quartiles(ratios: list[float]) -> list[float]:
    return [round(value, 3) for value in statistics.quantiles(ratios, n=4, method="inclusive")]


def _in_fresh_process(path: Path) -> dict[str, float]:
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(max_workers=1, mp_context=spawn) as pool:
        return pool.submit(memory_of_an_engine, path).result()


def memory_of_an_engine(path: Path) -> dict[str, float]:
    """The most memory that this process held while an engine read long prompts, and its parts."""
    with Engine.load(
        path, slots=SLOTS, context_tokens=CONTEXT_TOKENS, batch_tokens=BATCH_TOKENS, threads=THREADS
    ) as engine:
        prompts = [f"{slot} ".ljust(MEMORY_PROMPT_TOKENS, "x") for slot in range(SLOTS)]
        for generation in [engine.submit(prompt, Sampling(max_tokens=4)) for prompt in prompts]:
            generation.wait()
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
        cache = cache_bytes_per_token(engine._model) * SLOTS * CONTEXT_TOKENS
        file = engine.info.size_bytes
    parts = {"peak_rss": peak, "model_file": file, "kv_cache": cache, "extra": peak - file - cache}
    return {name: value / MEGABYTE for name, value in parts.items()}


def _memory_target(memory: dict[str, float]) -> Target:
    return at_most("memory_beyond_model_and_cache_mb", memory["extra"], MOST_EXTRA_MB)
