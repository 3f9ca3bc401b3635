"""The unsplit engine in a process that is pinned to some cores."""

from __future__ import annotations

import multiprocessing
import os
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

from loadtest.faults import LoadtestError
from schemas.commands import Tokenize
from schemas.requests.chat import ChatMessage
from schemas.requests.sampling import Sampling
from services.engine import Engine, Finished, TokenEvent

MODEL = "bench"

_open: dict[Path, Engine] = {}


class EngineNode:
    """A process on some cores, with an engine of as many threads."""

    def __init__(self, cores: tuple[int, ...], slots: int, context_tokens: int) -> None:
        self._size = (slots, context_tokens, len(cores))
        spawn = multiprocessing.get_context("spawn")
        self._pool = ProcessPoolExecutor(1, mp_context=spawn, initializer=_pin, initargs=(cores,))

    def tokens_per_s(self, model: Path, sequences: int, tokens: int) -> float:
        """The rate of so many sequences while all of them decode."""
        return self._pool.submit(_decode, model, self._size, sequences, tokens).result()

    def prompts(self, model: Path, sequences: int) -> list[list[int]]:
        """The tokens of the prompts that so many sequences begin with."""
        return self._pool.submit(_prompts, model, self._size, sequences).result()

    def prefill_ms(self, model: Path, prompt: str) -> tuple[float, int]:
        """The time until the first token of a prompt, and its length in tokens."""
        return self._pool.submit(_prefill, model, self._size, prompt).result()

    def close(self) -> None:
        """Ends the process."""
        self._pool.shutdown()


def _pin(cores: tuple[int, ...]) -> None:
    os.sched_setaffinity(0, cores)


def _engine(path: Path, size: tuple[int, int, int]) -> Engine:
    if path not in _open:
        slots, context_tokens, threads = size
        _open[path] = Engine.load(path, slots=slots, context_tokens=context_tokens, threads=threads)
    return _open[path]


def _message(number: int) -> ChatMessage:
    return ChatMessage(role="user", content=f"Sequence {number} reads:")


def _prompts(path: Path, size: tuple[int, int, int], sequences: int) -> list[list[int]]:
    engine = _engine(path, size)
    told = [engine.tokenize(Tokenize(model=MODEL, messages=(_message(n),))) for n in range(sequences)]
    return [list(tokenized.tokens or ()) for tokenized in told]


def _decode(path: Path, size: tuple[int, int, int], sequences: int, tokens: int) -> float:
    engine = _engine(path, size)
    times: list[list[float]] = [[] for _ in range(sequences)]

    def listen(number: int, event: TokenEvent | Finished) -> None:
        if isinstance(event, TokenEvent):
            times[number].append(time.perf_counter())

    generations = [
        engine.submit(
            [_message(number)],
            Sampling(max_tokens=tokens),
            lambda event, number=number: listen(number, event),  # type: ignore[misc]
        )
        for number in range(sequences)
    ]
    for generation in generations:
        generation.wait()
    start_s, end_s = max(own[0] for own in times), min(own[-1] for own in times)
    if end_s <= start_s:
        raise LoadtestError(f"one sequence had all its {tokens} tokens before another had any")
    inside = sum(start_s < at_s <= end_s for own in times for at_s in own)
    return inside / (end_s - start_s)


def _prefill(path: Path, size: tuple[int, int, int], prompt: str) -> tuple[float, int]:
    finished = _engine(path, size).generate(
        [ChatMessage(role="user", content=prompt)], Sampling(max_tokens=2)
    )
    return finished.prompt_eval_ns / 1e6, finished.prompt_tokens
