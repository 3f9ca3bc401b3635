"""The memory of a gateway over a hundred thousand requests: plain ones, streams, and answers from the cache.

The first fifth fills what has a limit: the cache, what may be sent again, the allocator's own rooms. After
that nothing may grow.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import tempfile
import time
from collections.abc import Iterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import uvloop

from infra.broker.local_cluster import free_port
from loadtest.bench.http.gateway import MODEL, PATH
from loadtest.bench.http.http_client import HttpConnection, http_connection, require, until_listening
from loadtest.bench.processes import bench_mesh
from loadtest.bench.report import Report, at_least, at_most

REQUESTS = int(os.environ.get("CHOIR_BENCH_REQUESTS", "100000"))
CLIENTS = 32
SAMPLES = 200
SETTLED_SHARE = 0.2
"""After this share of the requests all that has a limit is full."""
FEWEST_SAMPLES = 20
LIMIT_S = float(os.environ.get("CHOIR_BENCH_LIMIT_S", "1500"))
"""What is not sent by then is not sent: on a busy machine the line is laid through what was answered."""
MIB = 1024 * 1024
SETTINGS = {"CHOIR_GATEWAY__CACHE_BYTES": str(MIB)}
"""So small that the cache is full after the first fifth."""


def body(number: int) -> tuple[bytes, bool]:
    """The request of this number, and whether it streams."""
    asked: dict[str, Any] = {"model": MODEL, "messages": [{"role": "user", "content": f"question {number}"}]}
    kind = number % 4
    if kind == 1:
        asked["stream"] = True
    if kind >= 2:  # the same one again, so that every second of these is in the cache
        asked |= {"temperature": 0, "messages": [{"role": "user", "content": f"question {number // 4}"}]}
    return json.dumps(asked).encode(), kind == 1


async def measure(folder: Path) -> dict[str, Any]:
    """Resident memory while requests are sent, by how many were answered."""
    port = free_port()
    sizes: list[tuple[int, float]] = []
    async with bench_mesh(folder, (MODEL,)) as mesh:
        for service in ("router", "aggregator"):
            mesh.spawn(f"services.{service}")
        mesh.spawn_agent(MODEL, slots=64)
        await mesh.wait_ready((MODEL,))
        mesh.spawn("services.gateway", env={"CHOIR_GATEWAY__PORT": str(port), **SETTINGS})
        process = psutil.Process(mesh.processes[-1].pid)
        await until_listening(port)
        numbers = iter(range(REQUESTS))
        answered = itertools.count(1)
        began_s = time.monotonic()

        def note(done: int) -> None:
            if done % max(1, REQUESTS // SAMPLES) == 0:
                sizes.append((done, process.memory_info().rss / MIB))

        async with AsyncExitStack() as stack:
            connections = [await stack.enter_async_context(http_connection(port)) for _ in range(CLIENTS)]
            end_s = began_s + LIMIT_S
            await asyncio.gather(*(_ask(each, numbers, end_s, answered, note) for each in connections))
        took_s = time.monotonic() - began_s
    return {**_line(sizes), "seconds": took_s, "sizes_mib": [[done, round(mib, 1)] for done, mib in sizes]}


async def _ask(
    connection: HttpConnection, numbers: Iterator[int], end_s: float, answered: Iterator[int], note: Any
) -> None:
    for number in numbers:
        if time.monotonic() > end_s:
            return
        said, streams = body(number)
        if streams:
            parts = [part async for part in connection.stream(PATH, said)]
            require(b"[DONE]" in b"".join(parts), "a stream has no end")
        else:
            require(b'"content":"' in await connection.post(PATH, said), "a request was not answered")
        note(next(answered))


def _line(sizes: list[tuple[int, float]]) -> dict[str, Any]:
    """Where it began and ended after the first fifth, and the slope of a line through the rest."""
    settled = [(done, mib) for done, mib in sizes if done > REQUESTS * SETTLED_SHARE]
    answered = sizes[-1][0] if sizes else 0
    require(
        len(settled) >= FEWEST_SAMPLES,
        f"{answered:,} requests were answered within {LIMIT_S:g} s, too few for a line: give it more time by "
        "CHOIR_BENCH_LIMIT_S, or ask for fewer by CHOIR_BENCH_REQUESTS",
    )
    done, mib = (np.array(column, dtype=float) for column in zip(*settled, strict=True))
    slope = float(np.polyfit(done, mib, 1)[0])
    return {
        "requests": sizes[-1][0],
        "first_mib": sizes[0][1],
        "settled_mib": float(mib[0]),
        "last_mib": float(mib[-1]),
        "growth_kib_per_1000_requests": slope * 1000 * 1024,
    }


def run() -> Report:
    """Measures on this machine."""
    with tempfile.TemporaryDirectory() as folder:
        found = uvloop.run(measure(Path(folder) / "mesh"))
    growth = found["last_mib"] / found["settled_mib"] - 1
    return Report(
        bench="gateway-memory",
        raw=found,
        targets=(
            at_most("growth of the gateway's memory after the first fifth", growth, 0.05),
            at_least("requests answered", found["requests"], REQUESTS),
        ),
        notes=(
            f"{found['requests']:,} requests of {CLIENTS} clients: a half plain and streamed, a half of "
            "temperature 0, of which every second one is answered from the cache.",
        ),
    )
