"""Measures what more sequences in a step cost on this host: alone, and beside others that compute on it."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from itertools import accumulate
from pathlib import Path

import numpy as np

from schemas.pipelines.plan import StepCost
from services.chassis.process.limits import cores
from services.engine.decode.rows import RowGroup, Rows
from services.engine.decode.stage_context import StageContext
from services.engine.model.model import Weights

ROWS = (1, 2, 4, 8, 16)
"""More are taken to be on the line through the last two: each further row costs the same there."""
LEAST_STEPS, MOST_STEPS = 2, 6
ENOUGH_S = 0.02
"""A number of rows is timed again until it had so long, for a short step is soon disturbed."""
MOST_STEP_S = 0.3
"""No more rows are tried where a step takes so long: who starts is waited for."""
CONTEXT_TOKENS = 64  # at least 2 * len(ROWS) * MOST_STEPS


def step_costs(slice_file: Path, other_file: Path, threads: int, row_s: float) -> tuple[StepCost, ...]:
    """The costs of steps of a slice, on the processor with so many threads; a step of one row is known to
    take `row_s` undisturbed. Beside it another thread computes `other_file` over and over, a slice with other
    weights, where the host has cores for both: one of them, since both slices were in memory before, to
    measure layers. Blocks; raises ModelUnusable."""
    with ExitStack() as opened:
        stage = opened.enter_context(_stage(slice_file, slots=ROWS[-1], threads=threads))
        timed = _Timed(stage)
        alone = timed.steps_s(ROWS)
        if cores() < 2 * threads:
            return costs_of(alone, alone, row_s)
        with _at_work(opened.enter_context(_stage(other_file, slots=1, threads=threads))):
            return costs_of(alone, timed.steps_s(ROWS[: len(alone)]), row_s)


def costs_of(alone_s: Sequence[float], beside_s: Sequence[float], row_s: float) -> tuple[StepCost, ...]:
    """The costs by the times of steps of ROWS rows, over `row_s` or what one row took here, if that is less.
    More rows never cost less, nor does company: what is measured otherwise was disturbed."""
    least_s = min(row_s, alone_s[0])
    alone = list(accumulate((each / least_s for each in (least_s, *alone_s[1:])), max))
    beside = accumulate((each / least_s for each in beside_s), max)
    return tuple(
        StepCost(rows=rows, alone=cost, beside=max(cost, slower))
        for rows, cost, slower in zip(ROWS, alone, beside, strict=False)
    )


def _stage(path: Path, *, slots: int, threads: int) -> StageContext:
    return StageContext(
        Weights(path), slots=slots, context_tokens=CONTEXT_TOKENS, batch_tokens=slots, threads=threads
    )


class _Timed:
    """A stage whose steps are timed: every sequence goes on with each step that it is in."""

    def __init__(self, stage: StageContext) -> None:
        self._stage = stage
        self._positions = [0] * ROWS[-1]

    def steps_s(self, sizes: Sequence[int]) -> list[float]:
        """The shortest seconds of a step with so many rows each, from the fewest on, until one takes longer
        than MOST_STEP_S."""
        found: list[float] = []
        for rows in sizes:
            found.append(min(_enough(partial(self._step_s, rows))))
            if found[-1] > MOST_STEP_S:
                break
        return found

    def _step_s(self, count: int) -> float:
        rows = Rows.of([_part(self._stage, slot, self._positions[slot]) for slot in range(count)])
        for slot in range(count):
            self._positions[slot] += 1
        started_s = time.perf_counter()
        self._stage.evaluate(rows)
        return time.perf_counter() - started_s


def _enough(step_s: Callable[[], float]) -> Iterator[float]:
    spent_s = 0.0
    for number in range(MOST_STEPS):
        if number >= LEAST_STEPS and spent_s >= ENOUGH_S:
            return
        took_s = step_s()
        spent_s += took_s
        yield took_s


def _part(stage: StageContext, slot: int, position: int) -> RowGroup:
    if stage.origin.is_first:
        return RowGroup(slot, position, np.zeros(1, np.int32))
    return RowGroup(slot, position, np.ones((1, stage.weights.width), np.float32))


@contextmanager
def _at_work(stage: StageContext) -> Iterator[None]:
    """While it lasts the stage computes a row over and over, in a thread of its own."""
    done = threading.Event()

    def step() -> None:
        stage.forget(0)
        stage.evaluate(Rows.of([_part(stage, 0, 0)]), [0] if stage.origin.is_last else [])

    def work() -> None:
        while not done.is_set():
            step()

    step()  # what cannot be is raised here, and not in the thread
    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()
