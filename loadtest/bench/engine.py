"""The engine against a bare llama_decode loop: same model, same context parameters, same run.

The bare loop does what cannot be left out: fill the batch, decode, sample greedily in C. The engine does all
of its work besides, events included. The two take turns step by step, because what else the machine does
changes from second to second; the ratio is the median over pairs of neighbouring steps. Memory is measured
in a process of its own.
"""

from __future__ import annotations

import itertools
import multiprocessing
import resource
import statistics
import threading
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import Self

from infra.models.bench_model import write_bench_model
from loadtest.bench.report import Report, Target, at_least, at_most
from schemas.sampling import Sampling
from services.engine import Engine, Finished, TokenEvent
from services.engine.context import Context, cache_bytes_per_token
from services.engine.generation import OnEvent
from services.engine.model import Model

# isort: split
# After services.engine, which says how its threads wait before the library is loaded.
import llama_cpp

BATCH_SIZES = (1, 4, 8, 16)
THREADS = 2
SLOTS = 16
CONTEXT_TOKENS = 1024
BATCH_TOKENS = 512
PROMPT = "The engine reads:"
PAIRS_PER_VISIT = 25
BUDGET_S = 180.0
MOST_ROUNDS = 8
LEAST_RATIO = 0.95
MEGABYTE = 1e6
MOST_EXTRA_MB = 250.0
MEMORY_PROMPT_TOKENS = 80


class BareLoop:
    """llama_decode and a greedy sampler, and nothing around them."""

    def __init__(self, path: Path) -> None:
        self._model = Model(path)
        self._context = Context(
            self._model,
            slots=SLOTS,
            context_tokens=CONTEXT_TOKENS,
            batch_tokens=BATCH_TOKENS,
            threads=THREADS,
        )
        self._prompt = self._model.tokenize(PROMPT).tolist()
        self._batch = llama_cpp.llama_batch_init(BATCH_TOKENS, 0, 1)
        self._sampler = llama_cpp.llama_sampler_init_greedy()

    def begin(self, sequences: int) -> None:
        """Reads the prompt into `sequences` sequences."""
        self._last = [self._read_prompt(sequence) for sequence in range(sequences)]
        self._position = len(self._prompt)

    def step_s(self) -> float:
        """Decodes one token in each sequence; the seconds it took."""
        started = time.perf_counter()
        for sequence, token in enumerate(self._last):
            self._put(sequence, token, self._position, sequence)
        self._decode(len(self._last))
        self._last = [self._sample(row) for row in range(len(self._last))]
        self._position += 1
        return time.perf_counter() - started

    def _read_prompt(self, sequence: int) -> int:
        self._context.forget(sequence)
        for place, token in enumerate(self._prompt):
            self._put(place, token, place, sequence)
        self._decode(len(self._prompt))
        return self._sample(len(self._prompt) - 1)

    def _decode(self, tokens: int) -> None:
        self._batch.n_tokens = tokens
        llama_cpp.llama_decode(self._context.handle, self._batch)

    def _put(self, row: int, token: int, position: int, sequence: int) -> None:
        self._batch.token[row] = token
        self._batch.pos[row] = position
        self._batch.n_seq_id[row] = 1
        self._batch.seq_id[row][0] = sequence
        self._batch.logits[row] = 1

    def _sample(self, row: int) -> int:
        return int(llama_cpp.llama_sampler_sample(self._sampler, self._context.handle, row))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        llama_cpp.llama_sampler_free(self._sampler)
        llama_cpp.llama_batch_free(self._batch)
        self._context.close()
        self._model.close()


class Turnstile:
    """Stops the engine's thread, in its listeners, after each step in which all `sequences` have spoken, and
    lets it through for one step at a time."""

    def __init__(self, sequences: int) -> None:
        self._sequences = sequences
        self._generated: dict[int, int] = {}
        self._spoken = 0
        self._open = False
        self._go = threading.Semaphore(0)
        self._done = threading.Semaphore(0)

    def listener(self, sequence: int) -> OnEvent:
        """What one sequence tells its events to."""

        def listen(event: TokenEvent | Finished) -> None:
            if isinstance(event, TokenEvent) and not self._open:
                self._note(sequence)

        return listen

    def begin(self) -> None:
        """Waits until the last sequence has begun to speak."""
        self._done.acquire()

    def step_s(self) -> float:
        """Lets one step through: a token of each sequence; the seconds it took."""
        started = time.perf_counter()
        self._go.release()
        self._done.acquire()
        return time.perf_counter() - started

    def open(self) -> None:
        """Lets everything through."""
        self._open = True
        self._go.release()

    def _note(self, sequence: int) -> None:
        began = len(self._generated) == self._sequences
        self._generated[sequence] = self._generated.get(sequence, 0) + 1
        self._spoken += began
        if len(self._generated) == self._sequences and self._spoken % self._sequences == 0:
            self._done.release()
            self._go.acquire()


def run() -> Report:
    """Measures for BUDGET_S, and a while more for the memory."""
    path = write_bench_model()
    memory = _in_fresh_process(path)
    speeds = _alternate(path)
    ratios = {size: statistics.median(e / b for e, b in pairs) for size, pairs in speeds.items()}
    targets = [at_least(f"engine_over_bare_{size}", ratios[size], LEAST_RATIO) for size in BATCH_SIZES]
    return Report(
        bench="engine",
        raw={
            "engine_tokens_per_s": {str(n): statistics.median(e for e, _ in speeds[n]) for n in BATCH_SIZES},
            "bare_tokens_per_s": {str(n): statistics.median(b for _, b in speeds[n]) for n in BATCH_SIZES},
            "ratio": {str(size): ratio for size, ratio in ratios.items()},
            "ratio_quartiles": {str(n): _quartiles([e / b for e, b in speeds[n]]) for n in BATCH_SIZES},
            "pairs": {str(size): len(speeds[size]) for size in BATCH_SIZES},
            "threads": THREADS,
            "memory_mb": memory,
        },
        targets=(*targets, _memory_target(memory)),
        notes=("ratio: median over pairs of neighbouring steps of the engine and the bare loop",),
    )


def _alternate(path: Path) -> dict[int, list[tuple[float, float]]]:
    """Pairs (engine, bare) of tokens per second for each number of sequences, a step each."""
    speeds: dict[int, list[tuple[float, float]]] = {size: [] for size in BATCH_SIZES}
    with _engine(path) as engine, BareLoop(path) as bare:
        started = time.perf_counter()
        for number, size in itertools.product(range(MOST_ROUNDS), BATCH_SIZES):
            if number and time.perf_counter() - started > BUDGET_S:
                break
            speeds[size] += _visit(engine, bare, size)
    return speeds


def _visit(engine: Engine, bare: BareLoop, size: int) -> list[tuple[float, float]]:
    turnstile = Turnstile(size)
    sampling = Sampling(max_tokens=CONTEXT_TOKENS // 2)
    generations = [engine.submit(PROMPT, sampling, turnstile.listener(index)) for index in range(size)]
    turnstile.begin()
    bare.begin(size)
    pairs = [(size / turnstile.step_s(), size / bare.step_s()) for _ in range(PAIRS_PER_VISIT)]
    for generation in generations:
        generation.cancel()
    turnstile.open()
    for generation in generations:
        generation.wait()
    return pairs


def _quartiles(ratios: list[float]) -> list[float]:
    return [round(value, 3) for value in statistics.quantiles(ratios, n=4, method="inclusive")]


def _engine(path: Path) -> Engine:
    return Engine.load(
        path, slots=SLOTS, context_tokens=CONTEXT_TOKENS, batch_tokens=BATCH_TOKENS, threads=THREADS
    )


def _in_fresh_process(path: Path) -> dict[str, float]:
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(max_workers=1, mp_context=spawn) as pool:
        return pool.submit(memory_of_an_engine, path).result()


def memory_of_an_engine(path: Path) -> dict[str, float]:
    """The most memory that this process held while an engine read long prompts, and its parts."""
    with _engine(path) as engine:
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
