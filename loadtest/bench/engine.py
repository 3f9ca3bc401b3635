"""The engine against a bare llama_decode loop: same model, same context parameters, same run.

The bare loop does what cannot be left out: fill the batch, decode, sample greedily in C. The engine does all
of its work besides, events included. Both decode short stretches in turn, because what else the machine does
changes from second to second; the ratio is the median over pairs of neighbouring stretches. Memory is
measured in a process of its own.
"""

from __future__ import annotations

import itertools
import multiprocessing
import resource
import statistics
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
STRETCH_TOKENS = {1: 24, 4: 16, 8: 12, 16: 12}
WARM_UP_TOKENS = 3
BUDGET_S = 200.0
MOST_ROUNDS = 40
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

    def tokens_per_s(self, sequences: int, steps: int) -> float:
        """Decodes `steps` tokens in each of `sequences`."""
        last = [self._read_prompt(sequence) for sequence in range(sequences)]
        position = len(self._prompt)
        for _ in range(WARM_UP_TOKENS):
            last = self._step(last, position)
            position += 1
        started = time.perf_counter()
        for _ in range(steps):
            last = self._step(last, position)
            position += 1
        return sequences * steps / (time.perf_counter() - started)

    def _read_prompt(self, sequence: int) -> int:
        self._context.forget(sequence)
        for place, token in enumerate(self._prompt):
            self._put(place, token, place, sequence)
        self._batch.n_tokens = len(self._prompt)
        llama_cpp.llama_decode(self._context.handle, self._batch)
        return self._sample(len(self._prompt) - 1)

    def _step(self, last: list[int], position: int) -> list[int]:
        for sequence, token in enumerate(last):
            self._put(sequence, token, position, sequence)
        self._batch.n_tokens = len(last)
        llama_cpp.llama_decode(self._context.handle, self._batch)
        return [self._sample(row) for row in range(len(last))]

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


class Stopwatch:
    """Notes, from one generation's events, when which token was there."""

    def __init__(self) -> None:
        self.marks: list[tuple[float, int]] = []

    def __call__(self, event: TokenEvent | Finished) -> None:
        self.marks.append((time.perf_counter(), event.generated_tokens))


def engine_tokens_per_s(engine: Engine, sequences: int, steps: int) -> float:
    """Tokens per second while all of `sequences` were speaking, after their first few."""
    watches = [Stopwatch() for _ in range(sequences)]
    sampling = Sampling(max_tokens=WARM_UP_TOKENS + steps + sequences)
    generations = [engine.submit(PROMPT, sampling, watch) for watch in watches]
    for generation in generations:
        generation.wait()
    begin = max(next(at for at, count in watch.marks if count >= WARM_UP_TOKENS) for watch in watches)
    end = min(watch.marks[-2][0] for watch in watches)
    tokens = sum(_count_at(watch, end) - _count_at(watch, begin) for watch in watches)
    return tokens / (end - begin)


def _count_at(watch: Stopwatch, moment: float) -> int:
    return max(count for at, count in watch.marks if at <= moment)


def run() -> Report:
    """Measures for at most BUDGET_S, and a minute more for the memory."""
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
        notes=("ratio: median over pairs of neighbouring stretches of the engine and the bare loop",),
    )


def _alternate(path: Path) -> dict[int, list[tuple[float, float]]]:
    """Pairs (engine, bare) of tokens per second for each batch size, first one first, then the other."""
    speeds: dict[int, list[tuple[float, float]]] = {size: [] for size in BATCH_SIZES}
    with _engine(path) as engine, BareLoop(path) as bare:
        started = time.perf_counter()
        for number, size in itertools.product(range(MOST_ROUNDS), BATCH_SIZES):
            if number > 1 and time.perf_counter() - started > BUDGET_S:
                break
            speeds[size].append(_pair(engine, bare, size, engine_first=number % 2 == 0))
    return speeds


def _pair(engine: Engine, bare: BareLoop, size: int, *, engine_first: bool) -> tuple[float, float]:
    steps = STRETCH_TOKENS[size]
    if engine_first:
        ours = engine_tokens_per_s(engine, size, steps)
        return ours, bare.tokens_per_s(size, steps)
    theirs = bare.tokens_per_s(size, steps)
    return engine_tokens_per_s(engine, size, steps), theirs


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
