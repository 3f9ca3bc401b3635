"""One stage of a pipeline, or a whole model, alone in a process that is pinned to a core: the limit.

It does what cannot be left out: evaluate rows, and sample in the last stage or copy the hidden states out.
"""

from __future__ import annotations

import multiprocessing
import os
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np

from services.engine.decode.rows import RowGroup, Rows
from services.engine.decode.stage_context import StageContext
from services.engine.model.model import Model

# isort: split
# After services.engine, which says how its threads wait before the library is loaded.
import llama_cpp

BATCH_TOKENS = 128
WARM_STEPS = 2

_open: dict[Path, StageContext] = {}


class Node:
    """A process on some cores, that runs stages alone when it is asked to."""

    def __init__(self, cores: tuple[int, ...], slots: int, context_tokens: int) -> None:
        self._size = (slots, context_tokens, len(cores))
        spawn = multiprocessing.get_context("spawn")
        self._pool = ProcessPoolExecutor(1, mp_context=spawn, initializer=_pin, initargs=(cores,))

    def decode_step_ms(self, slice_path: Path, sequences: int, steps: int, position: int) -> list[float]:
        """The times of steps with a token of each of so many sequences, from `position` on."""
        return self._pool.submit(_decode, slice_path, self._size, sequences, steps, position).result()

    def prefill_ms(self, slice_path: Path, tokens: int) -> float:
        """The time in which one sequence of so many tokens is read, as fast as it goes."""
        return self._pool.submit(_prefill, slice_path, self._size, tokens).result()

    def close(self) -> None:
        """Ends the process."""
        self._pool.shutdown()


def _pin(cores: tuple[int, ...]) -> None:
    os.sched_setaffinity(0, cores)


def _stage(path: Path, size: tuple[int, int, int]) -> StageContext:
    if path not in _open:
        slots, context_tokens, threads = size
        _open[path] = StageContext(
            Model(path),
            slots=slots,
            context_tokens=context_tokens,
            batch_tokens=BATCH_TOKENS,
            threads=threads,
        )
    return _open[path]


def _inputs(stage: StageContext, count: int) -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
    if stage.origin.is_first:
        return np.full(count, 40, dtype=np.int32)
    random = np.random.default_rng(0)
    return random.normal(0, 1, (count, stage.weights.width)).astype(np.float32)


def _fill(stage: StageContext, sequences: int, tokens: int) -> None:
    inputs = _inputs(stage, tokens)
    for slot in range(sequences):
        stage.forget(slot)
        for start in range(0, tokens, BATCH_TOKENS):
            stage.evaluate(Rows.of([RowGroup(slot, start, inputs[start : start + BATCH_TOKENS])]))


def _decode(path: Path, size: tuple[int, int, int], sequences: int, steps: int, position: int) -> list[float]:
    stage = _stage(path, size)
    _fill(stage, sequences, position)
    sampler = llama_cpp.llama_sampler_init_greedy()
    inputs, timings_ms = _inputs(stage, 1), []
    for step in range(WARM_STEPS + steps):
        started_s = time.perf_counter()
        rows = Rows.of([RowGroup(slot, position + step, inputs) for slot in range(sequences)])
        if stage.origin.is_last:
            stage.evaluate(rows, list(range(sequences)))
            for row in range(sequences):
                llama_cpp.llama_sampler_sample(sampler, stage.context.handle, row)
        else:
            stage.hidden_states(rows)
        timings_ms.append((time.perf_counter() - started_s) * 1000)
    llama_cpp.llama_sampler_free(sampler)
    return timings_ms[WARM_STEPS:]


def _prefill(path: Path, size: tuple[int, int, int], tokens: int) -> float:
    stage = _stage(path, size)
    started_s = time.perf_counter()
    _fill(stage, 1, tokens)
    return (time.perf_counter() - started_s) * 1000
