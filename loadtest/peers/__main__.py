"""`python -m loadtest.peers [--json] [--only hop,gateways]`: Choir and its peers in one run.

The report has the load before and after, and says which targets are met.
"""

from __future__ import annotations

import argparse
import asyncio
import dataclasses
import os
import sys
import tempfile
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import psutil
from rich.console import Console

from infra.demo_models.bench_model import write_bench_model
from infra.settings import DEMO_MODELS
from loadtest.bench.report import Report, Target, show
from loadtest.peers import fan_out, gateways, hops, tokens
from loadtest.peers.clients import Latency, Load
from loadtest.peers.environments import CannotStart
from loadtest.peers.llama_rpc import in_turns as rpc
from schemas.errors import ChoirError

Raw = dict[str, Any]
MODELS: tuple[tuple[str, Callable[[], Path], int, int], ...] = (
    ("choir-llama", lambda: DEMO_MODELS / "choir-llama.gguf", 48, 6),
    ("large random weights", write_bench_model, 24, 2),
)
"""Name, file, tokens of an answer at most, requests for each stream."""


async def hop(folder: Path) -> Raw:
    """a) A gateway-like hop on an instant backend."""
    async with hops.instant_backend() as backend:
        bare = await hops.direct(backend)
        raw: Raw = {"direct": _row(*bare)}
        raw["choir"] = _row(*await hops.through_choir(backend, folder / "hop"), bare[0])
        raw["litellm proxy"] = await _or_why(
            lambda: hops.through_litellm(backend), hops.litellm_version, bare[0]
        )
    return raw


async def gateways_at_64(folder: Path) -> Raw:
    """d) The share of an instant server's rate that is left behind a gateway."""
    async with hops.instant_backend() as backend:
        upstream = await gateways.rate(backend)
        ours = await gateways.of_choir(folder / "gateways")
        raw: Raw = {"direct": {"requests_per_s": upstream}}
        raw["choir"] = {"requests_per_s": ours, "share_of_direct": ours / upstream}
        try:
            theirs = await gateways.of_litellm(backend)
        except CannotStart as error:
            return {**raw, "litellm proxy": f"could not be started: {error}"}
        except ChoirError as error:
            return {**raw, "litellm proxy": f"did not answer all: {error}"}
    raw["litellm proxy"] = {
        "version": hops.litellm_version(),
        "requests_per_s": theirs,
        "share_of_direct": theirs / upstream,
    }
    raw["choir"]["times_litellm"] = ours / theirs
    return raw


async def fan_out_of_four(folder: Path) -> Raw:
    """b) Four answers and their majority."""
    return {
        "choir": _row(*await fan_out.by_choir(folder / "fan-out")),
        "ray serve": await _or_why(fan_out.by_ray, fan_out.ray_version),
    }


async def tokens_of_streams(folder: Path) -> Raw:
    """c) Tokens per second at 1, 4, 8 and 16 concurrent streams."""
    raw: Raw = {}
    for name, path, max_tokens, per_stream in MODELS:
        model = path()
        ours = await tokens.by_choir(model, folder / name.split()[0], max_tokens, per_stream)
        raw[f"choir, {name}"] = _streams(ours)
        try:
            theirs = await tokens.by_llama_server(model, max_tokens, per_stream)
            raw[f"llama_cpp.server, {name}"] = _streams(theirs)
        except CannotStart as error:
            raw[f"llama_cpp.server, {name}"] = f"could not be started: {error}"
    raw["llama-cpp-python"] = tokens.llama_version()
    return raw


SETTINGS = (
    "Everything on one host over loopback, clients included; Choir stores every request and answer durably, "
    "the peers store nothing.",
    f"hop and fan-out: {hops.REQUESTS} requests one after another, then {hops.LOADED:,} of which "
    f"{hops.CONCURRENCY} at once.",
    f"hop: the LiteLLM proxy with one worker, without a key; Choir with one router and one agent of "
    f"{hops.CONCURRENCY} slots. Both ask the same HTTP server, which answers at once.",
    f"gateways: {gateways.REQUESTS:,} requests of {gateways.CLIENTS} clients; one worker each, and no key.",
    "fan-out: four Ray Serve deployments of one replica behind one that asks them; four `instant` agents.",
    f"tokens: both with {os.cpu_count()} threads and {tokens.CONTEXT_TOKENS} tokens of context; "
    f"Choir's agent with {max(tokens.CONCURRENCIES)} slots, the server one request at a time.",
    *(
        f"tokens, {name}: answers of at most {most} tokens, {each} for each stream"
        for name, _, most, each in MODELS
    ),
    f"rpc: the large random weights on two nodes, which are the cores {rpc.CORES[0]} and {rpc.CORES[1]}; the "
    "ratio is the median of rounds, over the faster way of llama.cpp at each number of streams.",
)
"""What was measured how; told with the figures."""

COMPARISONS: dict[str, Callable[[Path], Awaitable[Raw]]] = {
    "hop": hop,
    "gateways": gateways_at_64,
    "fan-out": fan_out_of_four,
    "tokens": tokens_of_streams,
    "rpc": lambda folder: rpc.in_turns(folder / "rpc"),
}
TARGETS: dict[str, Callable[[Raw], tuple[Target, ...]]] = {"rpc": rpc.targets}
"""What the figures of a comparison have to be, where there is an aim."""


async def _or_why(
    measure: Callable[[], Awaitable[tuple[Latency, Load]]],
    version: Callable[[], str],
    direct: Latency | None = None,
) -> Raw | str:
    """A peer's figures with its version; or why there are none. Nothing is estimated."""
    try:
        figures = await measure()
        return {"version": version(), **_row(*figures, direct)}
    except CannotStart as error:
        return f"could not be started: {error}"


def _row(latency: Latency, load: Load, direct: Latency | None = None) -> Raw:
    row: Raw = {**dataclasses.asdict(latency), f"requests_per_s_of_{load.concurrency}": load.requests_per_s}
    if direct is not None:
        added = latency.beside(direct)
        row |= {"added_p50_ms": added.p50_ms, "added_p99_ms": added.p99_ms}
    return row


def _streams(loads: list[Load]) -> Raw:
    return {f"tokens_per_s_at_{one.concurrency}": one.tokens_per_s for one in loads}


async def run(chosen: list[str]) -> Report:
    """All comparisons that are chosen, one after the other, on an otherwise idle machine."""
    load_before = round(psutil.getloadavg()[0], 2)
    raw: Raw = {}
    targets: tuple[Target, ...] = ()
    with tempfile.TemporaryDirectory() as folder:
        for name in chosen:
            found = await COMPARISONS[name](Path(folder))
            raw |= {f"{name}: {peer}": figures for peer, figures in found.items()}
            if name in TARGETS:
                targets += TARGETS[name](found)
    return Report(bench="peers", raw=raw, targets=targets, notes=SETTINGS, load_before_1m=load_before)


def main(arguments: list[str] | None = None) -> int:
    """Runs what the command line asks for; the exit code."""
    parser = argparse.ArgumentParser(prog="python -m loadtest.peers", description=__doc__)
    parser.add_argument("--json", action="store_true", help="print one JSON document")
    parser.add_argument("--only", default=",".join(COMPARISONS), help=", ".join(COMPARISONS))
    options = parser.parse_args(arguments)
    chosen = options.only.split(",")
    if unknown := [name for name in chosen if name not in COMPARISONS]:
        sys.stderr.write(f"there is no comparison {unknown[0]!r}; there are: {', '.join(COMPARISONS)}\n")
        return 2
    report = asyncio.run(run(chosen))
    if options.json:
        sys.stdout.write(report.model_dump_json(indent=2) + "\n")
    else:
        show(report, Console())
    return 0


if __name__ == "__main__":
    sys.exit(main())
