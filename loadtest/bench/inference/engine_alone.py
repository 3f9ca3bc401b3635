"""The unsplit engine in a process that is pinned to some cores."""

from __future__ import annotations

import multiprocessing
import os
import time
from concurrent.futures import Future, ProcessPoolExecutor
from pathlib import Path
from typing import NamedTuple

from loadtest.faults import LoadtestError
from schemas.commands import Tokenize
from schemas.requests.chat import ChatMessage
from schemas.requests.sampling import Sampling
from services.engine import Engine, Finished, TokenEvent

MODEL = "bench"

Times = list[list[float]]
"""When each sequence had its tokens, in seconds of the clock that all processes of a machine share."""

_open: dict[Path, Engine] = {}


class Size(NamedTuple):
    """What an engine is loaded with."""

    slots: int
    context_tokens: int
    threads: int
    fixed_threads: bool


class EngineNode:
    """A process on some cores, with an engine of as many threads, or of `threads`; its steps have fewer where
    those are faster, unless `fixed_threads`."""

    def __init__(
        self,
        cores: tuple[int, ...],
        slots: int,
        context_tokens: int,
        *,
        threads: int | None = None,
        fixed_threads: bool = False,
    ) -> None:
        self._size = Size(slots, context_tokens, threads or len(cores), fixed_threads)
        spawn = multiprocessing.get_context("spawn")
        self._pool = ProcessPoolExecutor(1, mp_context=spawn, initializer=_pin, initargs=(cores,))

    def tokens_per_s(self, model: Path, sequences: int, tokens: int) -> float:
        """The rate of so many sequences while all of them decode."""
        return rate(self.begin(model, sequences, tokens).result())

    def begin(self, model: Path, sequences: int, tokens: int) -> Future[Times]:
        """Begins so many sequences of so many tokens; when they had them."""
        return self._pool.submit(_decode, model, self._size, sequences, tokens)

    def threads(self, model: Path) -> int:
        """The threads of the latest step."""
        return self._pool.submit(_threads, model, self._size).result()

    def prompts(self, model: Path, sequences: int) -> list[list[int]]:
        """The tokens of the prompts that so many sequences begin with."""
        return self._pool.submit(_prompts, model, self._size, sequences).result()

    def prefill_ms(self, model: Path, prompt: str) -> tuple[float, int]:
        """The time until the first token of a prompt, and its length in tokens."""
        return self._pool.submit(_prefill, model, self._size, prompt).result()

    def close(self) -> None:
        """Ends the process."""
        self._pool.shutdown()


def rate(times: Times) -> float:
    """Tokens per second of sequences, of one engine or of several, while all of them decode. Raises
    LoadtestError where they never do."""
    start_s, end_s = max(own[0] for own in times), min(own[-1] for own in times)
    if end_s <= start_s:
        raise LoadtestError("one sequence had all its tokens before another had any")
    inside = sum(start_s < at_s <= end_s for own in times for at_s in own)
    return inside / (end_s - start_s)


def _pin(cores: tuple[int, ...]) -> None:
    os.sched_setaffinity(0, cores)


def _engine(path: Path, size: Size) -> Engine:
    if path not in _open:
        _open[path] = Engine.load(path, **size._asdict())
    return _open[path]


def _threads(path: Path, size: Size) -> int:
    return _engine(path, size).stats().threads


def _message(number: int) -> ChatMessage:
    return ChatMessage(role="user", content=f"Sequence {number} reads:")


def _prompts(path: Path, size: Size, sequences: int) -> list[list[int]]:
    engine = _engine(path, size)
    told = [engine.tokenize(Tokenize(model=MODEL, messages=(_message(n),))) for n in range(sequences)]
    return [list(tokenized.tokens or ()) for tokenized in told]


def _decode(path: Path, size: Size, sequences: int, tokens: int) -> Times:
    engine = _engine(path, size)
    times: Times = [[] for _ in range(sequences)]

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
    return times


def _prefill(path: Path, size: Size, prompt: str) -> tuple[float, int]:
    finished = _engine(path, size).generate(
        [ChatMessage(role="user", content=prompt)], Sampling(max_tokens=2)
    )
    return finished.prompt_eval_ns / 1e6, finished.prompt_tokens
