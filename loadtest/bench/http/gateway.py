"""What the gateway costs: chat completions over HTTP, beside `choir.ask` and an instant server.

U is an instant HTTP server asked directly (uvicorn, as the gateway), N is `choir.ask` of an instant model, G
is the same model asked through the gateway, and H an equal question again and again, which its cache answers.
Everything has a process of its own on one host, file streams are synced on every write, and the four
alternate in one run.

Latencies are those of an open loop: requests are due at a fixed rate, half of what `choir.ask` does with as
many clients in the same run, and each is counted from when it was due, also where its client was not free
then. Rates are those of clients that ask again as soon as they are answered: they tell how much there can be.
"""

from __future__ import annotations

import asyncio
import json
import statistics
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import uvloop

from infra.broker.local_cluster import free_ports
from loadtest.bench.http.http_client import HttpConnection, http_connection, require, said, until_listening
from loadtest.bench.mesh.overhead import SINGLE, Call, ask, rate_per_s
from loadtest.bench.processes import BenchMesh, bench_mesh, clients, cpu_seconds
from loadtest.bench.report import Report, at_least, at_most
from schemas.replies import TokenChunk
from services.client.client import Choir

MODEL, TALKER = "alpha", "talker"
PATH = "/v1/chat/completions"
ROUNDS = 3
ONE_CLIENT, SIXTEEN, SIXTY_FOUR = 150, 1_000, 2_000
CLIENTS, FEWER = 64, 16
LEAD_S = 0.05
"""Before the first request is due."""
STREAMS = 64
WORDS = 200
TOKENS_PER_S = 100
TTFT_ROUNDS = 40
"""What one stream more takes scatters by half a millisecond on either side."""
WARM_UP = 100
REPLY = " ".join(f"word{number}" for number in range(WORDS))
QUESTION = {"messages": [{"role": "user", "content": "What is the capital of France?"}]}
PLAIN = json.dumps({"model": MODEL, **QUESTION}).encode()
CACHED = json.dumps({"model": MODEL, **QUESTION, "temperature": 0}).encode()
Callers = Callable[[int], AbstractAsyncContextManager[list[Call]]]
STREAMED = json.dumps({"model": TALKER, "stream": True, **QUESTION}).encode()


def post(connection: HttpConnection, body: bytes = PLAIN) -> Call:
    """One chat completion; True if it has a text."""

    async def call() -> bool:
        reply = json.loads(await connection.post(PATH, body))
        return bool(reply["choices"][0]["message"]["content"])

    return call


@asynccontextmanager
async def http_callers(port: int, count: int, body: bytes = PLAIN) -> AsyncIterator[list[Call]]:
    """So many clients of an HTTP server, each with a connection of its own."""
    async with AsyncExitStack() as stack:
        yield [post(await stack.enter_async_context(http_connection(port)), body) for _ in range(count)]


@asynccontextmanager
async def native_callers(url: str, count: int) -> AsyncIterator[list[Call]]:
    """So many clients of the mesh, each with a connection of its own."""
    async with clients(url, count) as connections:
        yield [ask(connection, SINGLE) for connection in connections]


async def latencies(calls: Sequence[Call], count: int, per_s: float) -> list[float]:
    """Milliseconds of `count` requests from when each was due, at a rate; whichever client is free takes the
    next one. A thread says when: timers of a loop are a millisecond late."""
    loop, due = asyncio.get_running_loop(), asyncio.Queue[float]()
    began_s, turns, taken = time.perf_counter() + LEAD_S, iter(range(count)), []

    def tick() -> None:
        for number in range(count):
            due_s = began_s + number / per_s
            time.sleep(max(0.0, due_s - time.perf_counter()))
            loop.call_soon_threadsafe(due.put_nowait, due_s)

    async def client(call: Call) -> None:
        for _ in turns:
            due_s = await due.get()
            require(await call(), "a request was not answered")
            taken.append((time.perf_counter() - due_s) * 1000)

    await asyncio.gather(asyncio.to_thread(tick), *(client(call) for call in calls))
    return taken


async def half_rate(opened: Callers, count: int, requests: int) -> float:
    """Requests a second, half of what so many clients get that ask again as soon as they are answered."""
    async with opened(count) as calls:
        await rate_per_s(calls, WARM_UP)
        rate, failed = await rate_per_s(calls, requests)
    require(not failed, f"{failed} requests were not answered")
    return rate / 2


def p99(values: Sequence[float]) -> float:
    """The 99th percentile."""
    return statistics.quantiles(values, n=100)[-1]


async def measure(folder: Path) -> dict[str, Any]:
    """Latencies, rates and processor time of one run."""
    upstream, gateway = free_ports(2)
    async with bench_mesh(folder, (MODEL, TALKER)) as mesh:
        mesh.spawn("loadtest.peers.instant_server", str(upstream))
        pid = await _start(mesh, gateway)
        await asyncio.gather(until_listening(upstream), until_listening(gateway))
        callers: dict[str, Callers] = {
            "U": partial(http_callers, upstream),
            "N": partial(native_callers, mesh.url),
            "G": partial(http_callers, gateway),
            "H": partial(http_callers, gateway, body=CACHED),
        }
        one: dict[str, list[float]] = {name: [] for name in callers}
        sixteen: dict[str, list[float]] = {name: [] for name in callers}
        rates: dict[str, list[float]] = {name: [] for name in callers}
        per_s = {1: await half_rate(callers["N"], 1, ONE_CLIENT)}
        per_s[FEWER] = await half_rate(callers["N"], FEWER, SIXTEEN)
        plain_us = []
        for _ in range(ROUNDS):
            for name, opened in callers.items():
                async with opened(1) as calls:
                    await rate_per_s(calls, WARM_UP)
                    one[name].append(statistics.median(await latencies(calls, ONE_CLIENT, per_s[1])))
                async with opened(FEWER) as calls:
                    sixteen[name].append(p99(await latencies(calls, SIXTEEN, per_s[FEWER])))
                async with opened(CLIENTS) as calls:
                    used_s = cpu_seconds(pid)
                    rate, failed = await rate_per_s(calls, SIXTY_FOUR)
                require(not failed, f"{failed} requests were not answered")
                rates[name].append(rate)
                if name == "G":
                    plain_us.append((cpu_seconds(pid) - used_s) / SIXTY_FOUR * 1e6)
        streams = await _measure_streams(mesh.url, gateway, pid)
    return {
        "requests_due_per_s": {f"{count} clients": rate for count, rate in per_s.items()},
        "p50_ms_at_one_client": {name: statistics.median(values) for name, values in one.items()},
        "p99_ms_at_sixteen_clients": {name: statistics.median(values) for name, values in sixteen.items()},
        f"requests_per_s_of_{CLIENTS}_clients": {n: statistics.median(v) for n, v in rates.items()},
        "added_p50_ms": _difference(one),
        "added_p99_ms": _difference(sixteen),
        "rate_over_native": statistics.median(g / n for g, n in zip(rates["G"], rates["N"], strict=True)),
        "rate_over_upstream": statistics.median(g / u for g, u in zip(rates["G"], rates["U"], strict=True)),
        "hit_rate_over_upstream": statistics.median(
            h / u for h, u in zip(rates["H"], rates["U"], strict=True)
        ),
        "gateway_cpu_us_a_plain_request": statistics.median(plain_us),
        **streams,
    }


async def _start(mesh: BenchMesh, port: int) -> int:
    """The mesh that is measured; the gateway's process id."""
    for service in ("router", "aggregator"):
        mesh.spawn(f"services.{service}")
    mesh.spawn_agent(MODEL, slots=64)
    mesh.spawn_agent(TALKER, slots=64, reply=REPLY, delay_ms=WORDS * 1000 // TOKENS_PER_S)
    await mesh.wait_ready((MODEL, TALKER))
    mesh.spawn("services.gateway", env={"CHOIR_GATEWAY__PORT": str(port)})
    return mesh.processes[-1].pid


async def _measure_streams(url: str, port: int, pid: int) -> dict[str, Any]:
    """Time to the first text, natively and over HTTP in turns; then many streams at once."""
    native_ms, over_http_ms = [], []
    async with Choir(url) as mesh, http_connection(port) as connection:
        for _ in range(TTFT_ROUNDS):
            native_ms.append(await _native_first_ms(mesh))
            over_http_ms.append((await _streamed(connection)).first_ms)
    async with AsyncExitStack() as stack:
        several = [await stack.enter_async_context(http_connection(port)) for _ in range(STREAMS)]
        used_s = cpu_seconds(pid)
        started = time.perf_counter()
        streams = await asyncio.gather(*(_streamed(connection) for connection in several))
        took_s = time.perf_counter() - started
        used_s = cpu_seconds(pid) - used_s
    chunks = sum(stream.pieces for stream in streams)
    silences = sorted(silence for stream in streams for silence in stream.silences_ms)
    return {
        "ttft_ms": {"N": statistics.median(native_ms), "G": statistics.median(over_http_ms)},
        "added_ttft_ms": statistics.median(g - n for g, n in zip(over_http_ms, native_ms, strict=True)),
        "streams_at_once": STREAMS,
        "streamed_chunks_per_s": chunks / took_s,
        "streams_at_once_s": took_s,
        "silence_p99_ms": p99(silences),
        "longest_silence_ms": silences[-1],
        "gateway_cpu_us_a_streamed_chunk": used_s / chunks * 1e6,
    }


async def _native_first_ms(mesh: Choir) -> float:
    started, first_ms = time.perf_counter(), None
    async for reply in mesh.ask_stream("What is the capital of France?", model=TALKER):
        if first_ms is None and isinstance(reply, TokenChunk) and reply.text:
            first_ms = (time.perf_counter() - started) * 1000
    require(first_ms is not None, "a stream had no text")
    return first_ms or 0.0


@dataclass(frozen=True)
class Streamed:
    """A stream: milliseconds to its first text, how many pieces came, and the time between any two."""

    first_ms: float
    pieces: int
    silences_ms: list[float]


async def _streamed(connection: HttpConnection) -> Streamed:
    """One stream. All of the text has to come, in order: a gap or a piece that comes twice is an error."""
    started, texts, came_ms = time.perf_counter(), [], []
    async for part in connection.stream(PATH, STREAMED):
        for event in part.split(b"\n\n"):
            text = said(event) if event.strip() else None
            if text is not None:
                came_ms.append((time.perf_counter() - started) * 1000)
                texts.append(text)
    require("".join(texts) == REPLY, f"a stream is not what the model said: {''.join(texts)[:200]}")
    silences = [later - earlier for earlier, later in pairwise(came_ms)]
    return Streamed(came_ms[0], len(texts), silences)


def _difference(values: dict[str, list[float]]) -> float:
    """What the gateway adds to the native way, round by round; the median of the rounds."""
    return statistics.median(g - n for g, n in zip(values["G"], values["N"], strict=True))


def run() -> Report:
    """Measures on this machine's disk, in a folder that is gone afterwards."""
    with tempfile.TemporaryDirectory() as folder:
        found = uvloop.run(measure(Path(folder) / "mesh"))
    return Report(
        bench="gateway",
        raw=found,
        targets=(
            at_least("rate of 64 clients over the native one", found["rate_over_native"], 0.75),
            at_most("added p50 at one client, ms", found["added_p50_ms"], 0.6),
            at_most("added p99 at sixteen clients, ms", found["added_p99_ms"], 5.0),
            at_least("rate of cache hits over the instant server's", found["hit_rate_over_upstream"], 0.3),
            at_most("gateway's CPU for a plain request, us", found["gateway_cpu_us_a_plain_request"], 400.0),
            at_most("gateway's CPU for a streamed chunk, us", found["gateway_cpu_us_a_streamed_chunk"], 60.0),
            at_most("added time to the first text, ms", found["added_ttft_ms"], 1.0),
            at_most("64 streams of 2 s at 100 tokens/s, seconds", found["streams_at_once_s"], 2.2),
        ),
        notes=(
            "U: an instant HTTP server; N: choir.ask; G: the gateway; H: the same, from its cache. All share "
            "the cores of one machine, so the gateway's own work lowers the rate of everything behind it.",
            "Latencies: an open loop at half the rate that N has with as many clients, counted from when "
            "each request was due. Rates: saturation, clients that ask again as soon as they are answered.",
        ),
    )
