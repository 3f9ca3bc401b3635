"""What hostile options of generation cost those who ask the same model, and how soon each of these ends.

An engine with a demo model, as an agent has it. One client sends each entry of
`infra.testing.hostile.sampling`, one after another: to its end, and then again to cancel it at several
moments. Another client asks short questions all the while, one after another, and waits for the first text
of each.

How long one may take that is refused is what the engine promises: `STEP_LIMIT_S` of computing for reading it,
and as much for a token. The kernel counts computing and a client the clock, and others are at work on the
same cores: the aim is twice that.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import uvloop

from infra.demo_models.checksums import model_path
from infra.testing.hostile.sampling import HOSTILE
from loadtest.bench.report import Report, at_most
from schemas.commands import RawPrompt
from schemas.errors import ChoirError, InvalidRequest
from schemas.requests.sampling import Sampling
from services.agent.backends.llama_cpp import LlamaCpp
from services.engine import Engine
from services.engine.decode.grammar_protocol import STEP_LIMIT_S
from services.tasks.token_stream import Piece

MODEL = "choir-llama"
SLOTS, CONTEXT_TOKENS = 4, 1024
ROUNDS = 3
CANCEL_AFTER_S = (0.02, 0.1, 0.3, 0.6, 1.2, 2.0)
LONG_TOKENS = 512
"""Of one that is to be cancelled: it has not ended by itself before."""
QUIET_S = 10.0
QUESTION = RawPrompt(text="What is the capital of France?")
SHORT = Sampling(max_tokens=4)
ANYTHING = Sampling(max_tokens=1, grammar='root ::= "a"')
REFUSED_S = 2.0 * (STEP_LIMIT_S + STEP_LIMIT_S)
REFUSED = InvalidRequest.code


@dataclass
class Ends:
    """How hostile ones of one kind ended: seconds from sending and from cancelling, and how often in which
    way."""

    taken_s: list[float] = field(default_factory=list)
    cancelled_s: list[float] = field(default_factory=list)
    ways: Counter[str] = field(default_factory=Counter)

    def figures(self) -> dict[str, Any]:
        """The longest of each."""
        return {
            "ended_s": max(self.taken_s, default=0.0),
            "cancelled_s": max(self.cancelled_s, default=0.0),
            "ways": dict(self.ways),
        }


async def first_text_s(backend: LlamaCpp) -> float:
    """Seconds until the first text of a short question; the answer is heard to its end."""
    began_s, first_s = time.perf_counter(), 0.0

    async def hear(_piece: Piece) -> None:
        nonlocal first_s
        first_s = first_s or time.perf_counter() - began_s

    await backend.generate(QUESTION, SHORT, hear)
    return first_s or time.perf_counter() - began_s


@asynccontextmanager
async def asking(backend: LlamaCpp) -> AsyncIterator[list[float]]:
    """Somebody asks one short question after another; the seconds until the first text of each."""
    taken: list[float] = []
    over = asyncio.Event()

    async def ask_on() -> None:
        while not over.is_set():
            taken.append(await first_text_s(backend))

    task = asyncio.create_task(ask_on())
    try:
        yield taken
    finally:
        over.set()
        await task


async def to_the_end(backend: LlamaCpp, sampling: Sampling, ends: Ends) -> None:
    """Sends a hostile one, and notes when and how it ended."""
    began_s = time.perf_counter()
    way: str
    try:
        way = (await backend.generate(QUESTION, sampling, None)).finish_reason
    except ChoirError as error:
        way = error.code
    ends.taken_s.append(time.perf_counter() - began_s)
    ends.ways[way] += 1


async def cancelled(backend: LlamaCpp, sampling: Sampling, after_s: float, ends: Ends) -> None:
    """Sends a hostile one, cancels it after so many seconds unless it has ended; notes how soon it did."""
    longer = sampling.model_copy(update={"max_tokens": LONG_TOKENS})
    task = asyncio.ensure_future(backend.generate(QUESTION, longer, None))
    done, _ = await asyncio.wait((task,), timeout=after_s)
    cancelled_s = time.perf_counter()
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError, ChoirError):
        await task
    if not done:
        ends.cancelled_s.append(time.perf_counter() - cancelled_s)
        ends.ways["cancelled"] += 1


async def measure() -> dict[str, Any]:
    """First texts in quiet and beside each hostile one (seconds), and how that one ended."""
    with Engine.load(model_path(MODEL), slots=SLOTS, context_tokens=CONTEXT_TOKENS) as engine:
        backend = LlamaCpp(engine)
        async with asking(backend):  # whatever is done once only is done
            await to_the_end(backend, ANYTHING, Ends())
        async with asking(backend) as quiet:
            await asyncio.sleep(QUIET_S)
        ends: dict[str, Ends] = {name: Ends() for name in HOSTILE}
        beside: dict[str, list[float]] = {}
        next_grammar = Ends()
        for name, sampling in HOSTILE.items():
            async with asking(backend) as beside[name]:
                for _ in range(ROUNDS):
                    await to_the_end(backend, sampling, ends[name])
                for after_s in CANCEL_AFTER_S:
                    await cancelled(backend, sampling, after_s, ends[name])
                    await to_the_end(backend, ANYTHING, next_grammar)
        await backend.close()
    return figures(quiet, beside, ends) | {"next_grammar_s": _distribution(next_grammar.taken_s)}


def figures(quiet: list[float], beside: dict[str, list[float]], ends: dict[str, Ends]) -> dict[str, Any]:
    """Of each hostile one the longest first text of the others, and its own times; of all together the
    longest."""
    everything = [second for each in beside.values() for second in each]
    return {
        "first_text_quiet_s": _distribution(quiet),
        "first_text_beside_s": _distribution(everything),
        "longest_first_text_s": {name: max(each, default=0.0) for name, each in beside.items()},
        **{
            key: {name: each.figures()[key] for name, each in ends.items()}
            for key in ("ended_s", "cancelled_s", "ways")
        },
    }


def _distribution(values: list[float]) -> dict[str, float]:
    p50, p99 = np.percentile(values, [50, 99])
    return {"count": len(values), "p50": float(p50), "p99": float(p99), "max": max(values)}


def run() -> Report:
    """Measures an engine in this process."""
    raw = uvloop.run(measure())
    ended = raw["ended_s"].items()
    refused = max((s for name, s in ended if REFUSED in raw["ways"][name]), default=0.0)
    return Report(
        bench="hostile-sampling",
        raw=raw,
        targets=(
            at_most(
                "seconds until the first text of the others, the longest",
                raw["first_text_beside_s"]["max"],
                1.0,
            ),
            at_most("seconds from a cancel to its end, the longest", max(raw["cancelled_s"].values()), 1.0),
            at_most("seconds until one was refused, the longest", refused, REFUSED_S),
        ),
        notes=(
            f"each of {len(HOSTILE)} entries {ROUNDS} times to its end, and cancelled after "
            f"{', '.join(f'{after_s:g}' for after_s in CANCEL_AFTER_S)} s; "
            "one that has ended by then is not counted",
            "next_grammar_s: a harmless grammar right after a cancel; the reading of the one before goes on, "
            "and grammars are read one after another",
        ),
    )
