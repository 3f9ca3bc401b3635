"""Clients of what is measured: one at a time for latency, many at once for the rate. The same for all."""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import httpx
import numpy as np

TIMEOUT_S = 300.0
WARM_UP = 20

Call = Callable[[int], Awaitable[int]]
"""Sends the request of this number and waits for its answer; how many tokens the answer has."""


@dataclass(frozen=True)
class Latency:
    """Of one request after another, in ms."""

    p50_ms: float
    p99_ms: float

    def beside(self, direct: Latency) -> Latency:
        """What a hop adds to the way without it, percentile by percentile."""
        return Latency(self.p50_ms - direct.p50_ms, self.p99_ms - direct.p99_ms)


@dataclass(frozen=True)
class Load:
    """Of `concurrency` requests at once, each followed by the next one."""

    concurrency: int
    requests_per_s: float
    tokens_per_s: float


async def latency(call: Call, count: int) -> Latency:
    """One request after another."""
    for number in range(WARM_UP):
        await call(number)
    times_ms = []
    for number in range(WARM_UP, WARM_UP + count):
        started_s = time.perf_counter()
        await call(number)
        times_ms.append((time.perf_counter() - started_s) * 1000)
    return Latency(*(float(value) for value in np.percentile(times_ms, (50, 99))))


async def load(call: Call, concurrency: int, count: int) -> Load:
    """`count` requests, `concurrency` at once."""
    numbers = iter(range(count))
    tokens = 0

    async def user() -> None:
        nonlocal tokens
        for number in numbers:
            found = await call(number)
            tokens += found  # in a step of its own: others add to it while this one waits

    started_s = time.perf_counter()
    await asyncio.gather(*(user() for _ in range(concurrency)))
    seconds = time.perf_counter() - started_s
    return Load(concurrency, count / seconds, tokens / seconds)


@asynccontextmanager
async def http_calls(url: str, body: Callable[[int], dict[str, Any]]) -> AsyncIterator[Call]:
    """POST requests over connections that are kept; an answer that is no success is an error."""
    limits = httpx.Limits(max_connections=256, max_keepalive_connections=256)
    async with httpx.AsyncClient(limits=limits, timeout=TIMEOUT_S) as client:

        async def call(number: int) -> int:
            reply = await client.post(url, json=body(number))
            reply.raise_for_status()
            document = reply.json()
            return int((document.get("usage") or {}).get("completion_tokens", 0))

        yield call


def differing(texts: str) -> Callable[[int], str]:
    """Prompts that are not one another's beginning, so that nothing is found in a cache."""
    run = itertools.count()
    return lambda number: f"{next(run)} {number}: {texts}"
